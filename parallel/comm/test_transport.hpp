// A decorator for tests and experiments: a slower network, late or reordered completion, and collectives that break on
// purpose.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/transport.hpp"

namespace weft {

enum class Fault : std::uint8_t {
  fail,     ///< ends with an Error
  hang,     ///< never starts and never ends
  corrupt,  ///< one bit of the result is wrong
  skip,     ///< nothing is sent; the output keeps what it held
  scale,    ///< the result is multiplied by `value`
  delay,    ///< the end comes `value` seconds later
  reorder   ///< ends only after the group's next operation has ended, or after one second
};

/// Which operations break, and how.
struct FaultRule {
  std::optional<CollectiveKind> kind;  ///< any if unset
  std::string group;                   ///< the group's name; any if empty
  int rank = -1;                       ///< world rank that breaks; all if negative
  std::int64_t first = 0;              ///< counting the matching operations from 0
  std::int64_t count = INT64_MAX;
  Fault fault = Fault::fail;
  double value = 0;
};

/// A link that each operation's wire bytes pass one after another; urgent operations pass bulk ones. Its time is waited
/// for by a timer, without computing.
struct TestNetwork {
  double bytes_per_second = 0;  ///< 0: as fast as the real one
  double latency_seconds = 0;
};

struct TestPlan {
  TestNetwork network;
  std::vector<FaultRule> faults;
  bool empty() const { return faults.empty() && network.bytes_per_second <= 0 && network.latency_seconds <= 0; }
};

/// Parses "bandwidth=1e8,latency=1e-3;all_reduce:dp:first=3,count=1,rank=1,scale=2;any:any:delay=0.1". Throws
/// UserError.
TestPlan parse_test_plan(std::string_view text);

/// Wraps `inner`, and every group made from it.
std::unique_ptr<Transport> make_test_transport(std::unique_ptr<Transport> inner, const TestPlan& plan,
                                               std::string name);

}  // namespace weft
