// What tests of training on the fiber device share: short runs of `weft train` on it or on the CPU, and their metrics.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "faults.hpp"

namespace weft::test {

class FiberDevice : public testing::Test {
 protected:
  static constexpr int steps = 8;

  FiberDevice();
  Outcome weft(const Words& words, const Words& environment = {}) const;
  /// `ranks`: 0 is `weft train` alone, otherwise `weft launch -n RANKS`.
  Outcome train(const std::string& out, const std::string& device, const Words& more = {}, int ranks = 0,
                const Words& environment = {}) const;
  /// Two ranks of `run` on it, until rank 1 gets `signal` after some steps.
  Outcome signal_rank_1(const Training& run, int signal, const Words& environment = {}) const;
  /// A column of metrics.jsonl, by step, as it stands there.
  std::map<int, std::string> column(const std::string& out, const std::string& name) const;

  TemporaryFolder folder_;
  std::string data_;
};

/// The same steps, and values that are equal up to `tolerance` relative.
void expect_near(const std::map<int, std::string>& expected, const std::map<int, std::string>& found, double tolerance);

}  // namespace weft::test
