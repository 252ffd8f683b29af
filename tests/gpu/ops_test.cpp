// The table of operation cases on the device.
#include <gtest/gtest.h>

#include "tests/gpu/device_under_test.hpp"
#include "tests/unit/op_cases/check.hpp"

namespace weft::test {
namespace {

struct Point {
  OpCase op;
  DType activation;
};

void PrintTo(const Point& point, std::ostream* out) { *out << point.op.name << " " << name_of(point.activation); }

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

class GpuOps : public testing::TestWithParam<Point> {
 protected:
  static void SetUpTestSuite() { device_ = open_gpu(); }
  static void TearDownTestSuite() { device_.reset(); }
  static std::unique_ptr<Device> device_;
};

std::unique_ptr<Device> GpuOps::device_;

TEST_P(GpuOps, AgreeWithTheOracleAndItsFiniteDifferences) {
  DeviceMachine machine(*device_);
  const Results found = execute(machine, GetParam().op, GetParam().activation);
  expect_right(GetParam().op, GetParam().activation, found);
  EXPECT_TRUE(found.bytes == execute(machine, GetParam().op, GetParam().activation).bytes)
      << "a second run gave other bits";
}

INSTANTIATE_TEST_SUITE_P(Table, GpuOps, testing::ValuesIn(points()), name_of_point);

}  // namespace
}  // namespace weft::test
