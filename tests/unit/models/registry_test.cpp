// What the registry says of mixers and meshes.
#include "models/registry.hpp"

#include <gtest/gtest.h>

namespace weft {
namespace {

struct Misfit {
  std::string what;
  MixerEntry entry;
  int sp, tp;
  bool shared_rows;
  std::string text;
};

TEST(RegistryTest, AMixerIsRefusedWhereItDoesNotGoWithTheOptionThatAsksForIt) {
  const MixerEntry nowhere{.name = "lone", .make = nullptr};
  const MixerEntry everywhere{.name = "free", .make = nullptr, .shards_tp = true, .shards_sp = true};
  const MixerEntry window{.name = "seer", .make = nullptr, .shards_tp = true, .shards_sp = true, .whole_rows = true};
  const std::string sp = "--sp: found 3; the mixer lone works on whole sequences on one rank, 1 would be right";
  const std::string tp = "--tp: found 2; the mixer lone has all its channels on one rank, 1 would be right";
  const std::string rows = "--tp-sequence: found on; the mixer seer needs all rows of the stream, off would be right";
  for (const Misfit& row : {Misfit{"alone", nowhere, 1, 1, true, ""},
                            {"tokens", nowhere, 3, 1, true, sp},
                            {"channels", nowhere, 1, 2, false, tp},
                            {"both: the first option that is wrong", nowhere, 3, 2, true, sp},
                            {"any mesh", everywhere, 3, 2, true, ""},
                            {"shared rows", window, 1, 2, true, rows},
                            {"whole rows", window, 1, 2, false, ""},
                            {"one tp rank has all rows", window, 3, 1, true, ""}})
    EXPECT_EQ(mixer_misfit(row.entry, row.sp, row.tp, row.shared_rows), row.text) << row.what;
}

}  // namespace
}  // namespace weft
