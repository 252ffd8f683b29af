// What mpirun writes to standard error: the ranks' lines go through, its own boxed messages are read.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace weft {

/// "process rank 1 with PID 77 on node n0 exited on signal 9"
struct KilledRank {
  int rank = -1;
  std::string host;
  int signal = 0;
};

class StarterOutput {
 public:
  /// `forward` gets all that is not a known message of the starter, as soon as it comes.
  explicit StarterOutput(std::function<void(std::string_view)> forward) : forward_(std::move(forward)) {}

  /// What one read returned. Boxes begin at the start of a line or of a read (a progress bar leaves its line open).
  void feed(std::string_view text);
  void finish();
  const std::optional<KilledRank>& killed() const { return killed_; }

 private:
  void take_line(std::string_view line);
  void end_box();

  std::function<void(std::string_view)> forward_;
  std::string held_;  ///< a line that may turn out to be a box's edge, or a box's unfinished line
  std::string box_;
  bool in_box_ = false;
  bool line_start_ = true;
  std::optional<KilledRank> killed_;
};

}  // namespace weft
