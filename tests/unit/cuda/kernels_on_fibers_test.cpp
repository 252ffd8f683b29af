// The CUDA kernels' own source, run on fibers, through the table of operation cases.
#include <gtest/gtest.h>

#include "core/cuda/kernels/bind.hpp"
#include "tests/unit/op_cases/check.hpp"

namespace weft::test {
namespace {

struct Point {
  OpCase op;
  DType activation;
};

void PrintTo(const Point& point, std::ostream* out) {
  *out << point.op.name << " " << name_of(point.activation);
}

std::string name_of_point(const testing::TestParamInfo<Point>& info) {
  return test_name(fmt::format("{}_{}", info.param.op.name, name_of(info.param.activation)));
}

std::vector<Point> points() {
  std::vector<Point> all;
  for (const OpCase& op : all_op_cases())
    for (const DType activation : {DType::f32, DType::bf16})
      if (activation == DType::f32 || !op.f32_only) all.push_back({op, activation});
  return all;
}

Results run_on_fibers(const Point& point) {
  KernelTable kernels;
  cuda::bind(kernels, kernel_abi_hash());
  HostMachine machine(kernels, cuda::make_state(), 1);
  return execute(machine, point.op, point.activation);
}

class CudaKernels : public testing::TestWithParam<Point> {};

TEST_P(CudaKernels, AgreeWithTheOracleAndItsFiniteDifferences) {
  const Results found = run_on_fibers(GetParam());
  expect_right(GetParam().op, GetParam().activation, found);
  EXPECT_TRUE(found.bytes == run_on_fibers(GetParam()).bytes) << "a second run gave other bits";
}

INSTANTIATE_TEST_SUITE_P(Table, CudaKernels, testing::ValuesIn(points()), name_of_point);

}  // namespace
}  // namespace weft::test
