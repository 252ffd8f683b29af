// Ranks of different processors agree on what they compute with.
#include "launcher/common_device.hpp"

#include "tests/distributed/mpi_test.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft::test {
namespace {

TEST(CommonDevice, IsTheLeastOfAllRanksOnEveryRank) {
  for (int least = 0; least < world().size(); ++least) {
    DeviceTraits own{DeviceKind::cpu, cpu::Isa::v4, true};
    if (world().rank() == least) own = {DeviceKind::cpu, cpu::Isa::v3, false};
    const DeviceTraits common = agree_on_traits(mpi(), own);
    EXPECT_EQ(common.isa, cpu::Isa::v3);
    EXPECT_FALSE(common.fast_bf16);
  }
}

TEST(CommonDevice, OfDifferentKindsIsRefusedByEveryRank) {
  const bool last = world().rank() == world().size() - 1;
  const DeviceTraits own{last ? DeviceKind::cuda : DeviceKind::cpu, cpu::Isa::v4, true};
  const std::string message = user_error([&] { agree_on_traits(mpi(), own); });
  EXPECT_NE(message.find(fmt::format("cuda on rank {}", world().size() - 1)), std::string::npos) << message;
}

}  // namespace
}  // namespace weft::test
