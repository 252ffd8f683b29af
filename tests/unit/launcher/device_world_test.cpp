// Who may exchange device memory by links.
#include "launcher/device_world.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft {
namespace {

using testing::HasSubstr;

TEST(DeviceWorld, RanksWithAGpuEachAreLinked) {
  EXPECT_EQ(why_not_linked({{"a", "0000:01:00.0", ""}, {"a", "0000:02:00.0", ""}, {"b", "0000:01:00.0", ""}}), "");
}

TEST(DeviceWorld, DevicesWithoutAPlaceOnABusAreTakenForDifferentOnes) {
  EXPECT_EQ(why_not_linked({{"a", "", ""}, {"a", "", ""}}), "");
}

TEST(DeviceWorld, RanksThatShareAGpuAreNamed) {
  const std::string why = why_not_linked({{"a", "1", ""}, {"b", "2", ""}, {"b", "2", ""}});
  EXPECT_THAT(why, HasSubstr("ranks 1 and 2 share GPU 2 of b"));
}

TEST(DeviceWorld, TheFirstRankWithoutLinksSaysWhatIsMissing) {
  const std::string why = why_not_linked({{"a", "1", ""}, {"b", "1", "no libnccl"}, {"c", "1", "no libnccl"}});
  EXPECT_EQ(why, "rank 1 on b has no links: no libnccl");
}

}  // namespace
}  // namespace weft
