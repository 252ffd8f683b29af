// Every case on every instruction set of this processor, in f32 and bf16.
#include <gtest/gtest.h>

#include "core/cpu/backend.hpp"
#include "tests/unit/op_cases/check.hpp"

namespace weft::test {
namespace {

std::vector<cpu::Isa> available() {
  std::vector<cpu::Isa> all;
  for (const cpu::Isa isa : {cpu::Isa::portable, cpu::Isa::v3, cpu::Isa::v4})
    if (isa <= cpu::best_isa()) all.push_back(isa);
  return all;
}

struct Point {
  OpCase op;
  DType activation;
  cpu::Isa isa;
};

void PrintTo(const Point& point, std::ostream* out) {
  *out << point.op.name << " " << name_of(point.activation) << " " << name_of(point.isa);
}

std::string name_of_point(const testing::TestParamInfo<Point>& info) {
  const std::string_view isa = info.param.isa == cpu::Isa::portable ? "portable"
                               : info.param.isa == cpu::Isa::v3     ? "v3"
                                                                    : "v4";
  return test_name(fmt::format("{}_{}_{}", info.param.op.name, name_of(info.param.activation), isa));
}

std::vector<Point> points() {
  std::vector<Point> all;
  for (const OpCase& op : all_op_cases())
    for (const DType activation : {DType::f32, DType::bf16})
      for (const cpu::Isa isa : available())
        if (activation == DType::f32 || !op.f32_only) all.push_back({op, activation, isa});
  return all;
}

Results run_on_cpu(const Point& point, int threads) {
  KernelTable kernels;
  cpu::bind(kernels, kernel_abi_hash(), point.isa);
  HostMachine machine(kernels, cpu::make_state(), threads);
  return execute(machine, point.op, point.activation);
}

class OpCases : public testing::TestWithParam<Point> {};

TEST_P(OpCases, AgreesWithTheOracleAndItsFiniteDifferences) {
  const Point& point = GetParam();
  for (const int threads : {1, 2}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    const Results found = run_on_cpu(point, threads);
    expect_right(point.op, point.activation, found);
    if (threads == 2) {
      EXPECT_TRUE(found.bytes == run_on_cpu(point, threads).bytes) << "a second run gave other bits";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, OpCases, testing::ValuesIn(points()), name_of_point);

}  // namespace
}  // namespace weft::test
