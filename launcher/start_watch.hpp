// Ends this process when MPI does not come up: a rank that stops before the ranks have met is out of the heartbeats'
// sight.
#pragma once
#include <functional>
#include <thread>

namespace weft {

class StartWatch {
 public:
  /// Calls `late` on a thread of its own if this is not destroyed within `seconds`; 0: never.
  StartWatch(double seconds, std::function<void()> late);

 private:
  std::jthread thread_;
};

}  // namespace weft
