#include "launcher/common_device.hpp"

#include <gmock/gmock.h>

#include <vector>

namespace weft {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr DeviceTraits best{DeviceKind::cpu, cpu::Isa::v4, true}, older{DeviceKind::cpu, cpu::Isa::v3, false},
    no_bf16{DeviceKind::cpu, cpu::Isa::v4, false}, gpu{DeviceKind::cuda, cpu::Isa::v4, true};
const std::vector<RankPlace> places = {{"a", 1}, {"a", 2}, {"b", 3}, {"c", 4}};

TEST(CommonDevice, OfProcessorsThatDifferIsWhatTheLeastOfThemHas) {
  const std::vector<DeviceTraits> ranks = {best, no_bf16, older, best};
  const DeviceTraits common = common_traits(ranks, places);
  EXPECT_EQ(common.isa, cpu::Isa::v3);
  EXPECT_FALSE(common.fast_bf16);
  EXPECT_EQ(compute_dtype(DTypeChoice::automatic, common), DType::f32);
  EXPECT_EQ(compute_dtype(DTypeChoice::bf16, common), DType::bf16);
  EXPECT_THAT(limits_text(ranks, places),
              AllOf(HasSubstr("x86-64-v3 kernels"), HasSubstr("auto is f32"), HasSubstr("ranks 1-2 (a and others)")));
}

TEST(CommonDevice, OfEqualProcessorsIsTheirBestWithoutAWarning) {
  const std::vector<DeviceTraits> ranks = {best, best, best, best};
  const DeviceTraits common = common_traits(ranks, places);
  EXPECT_EQ(common.isa, cpu::Isa::v4);
  EXPECT_EQ(compute_dtype(DTypeChoice::automatic, common), DType::bf16);
  EXPECT_EQ(compute_dtype(DTypeChoice::f32, common), DType::f32);
  EXPECT_EQ(limits_text(ranks, places), "");
}

TEST(CommonDevice, OfGpusIsNotThatOfTheirHostsProcessors) {
  constexpr DeviceTraits beside_older{DeviceKind::cuda, cpu::Isa::v3, true};
  EXPECT_EQ(limits_text(std::vector{gpu, beside_older, gpu, gpu}, places), "");
  constexpr DeviceTraits older_gpu{DeviceKind::cuda, cpu::Isa::v4, false};
  EXPECT_THAT(limits_text(std::vector{gpu, older_gpu, gpu, gpu}, places),
              AllOf(HasSubstr("auto is f32"), HasSubstr("rank 1"), testing::Not(HasSubstr("kernels"))));
}

TEST(CommonDevice, OfDifferentKindsIsRefusedWithTheRanksAndHosts) {
  const std::vector<DeviceTraits> ranks = {gpu, gpu, best, gpu};
  try {
    common_traits(ranks, places);
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("--device"), HasSubstr("cuda on ranks 0-1,3 (a and others)"),
                                    HasSubstr("cpu on rank 2 (b)")));
  }
}

}  // namespace
}  // namespace weft
