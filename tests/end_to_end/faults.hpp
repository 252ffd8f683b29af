// Tiny trainings that tests disturb: started in the background, watched through /proc and their run folder, judged by
// what they leave behind.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "run_weft.hpp"

namespace weft::test {

using Words = std::vector<std::string>;

/// Polls until `condition` holds; false when `seconds` have passed before.
bool wait_until(const std::function<bool()>& condition, double seconds = 60);

/// A program that runs beside the test, in a process group of its own; what it says goes to files.
class Background {
 public:
  Background(const Words& words, const TemporaryFolder& folder);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  void signal(int number) const;
  /// Standard error so far.
  std::string err() const;
  /// Its end; it is killed if that takes longer than `seconds`.
  Outcome wait(double seconds = 60);

 private:
  pid_t pid_;
  std::string out_, err_;
  std::optional<int> status_;
};

/// One run's folder, the options that it is started with, and what can be seen of it from outside. The model is tiny,
/// and the learning rate does not depend on --steps, so that runs of different length can be compared.
class Training {
 public:
  explicit Training(Words options = {});
  ~Training();

  /// The command line: 0 ranks is `weft train` alone, otherwise `weft launch -n RANKS`.
  Words command(int ranks, const Words& more = {}) const;
  /// `mpirun -n RANKS weft train`, with the settings that Open MPI needs for root and few cores.
  Words bare_mpirun(int ranks, const Words& more = {}) const;
  /// `weft train` and its options alone.
  Words train(const Words& more = {}) const;

  Outcome run(int ranks, const Words& more = {}) const { return run_program(command(ranks, more), 90); }

  const TemporaryFolder& folder() const { return folder_; }
  std::string out() const { return folder_ / "out"; }

  /// By step, the text of `key` in the step rows of metrics.jsonl. A step that stands there twice is a failure.
  std::map<std::int64_t, std::string> step_values(const std::string& key = "loss") const;
  /// By step, the validation losses.
  std::map<std::int64_t, std::string> valid_losses() const;
  /// The latest step in metrics.jsonl, 0 if there is none.
  std::int64_t last_step() const;
  /// Steps of complete checkpoints, in order.
  std::vector<std::int64_t> checkpoints() const;
  std::int64_t last_checkpoint() const;
  /// The step that the checkpoint's index states, and all bytes of its tensors.
  std::string checkpoint_state(std::int64_t step) const;
  std::string checkpoint_data(std::int64_t step) const;

  /// Ranks that run now, by number (one rank alone is number 0).
  std::map<int, pid_t> ranks() const;
  std::optional<pid_t> mpirun() const;
  /// Every process of this run: launcher, mpirun and ranks.
  std::vector<pid_t> processes() const;
  /// Files of shared memory that its ranks have mapped: a killed mpirun leaves them behind.
  std::vector<std::string> shared_memory() const;
  /// True once no process of this run is left.
  bool nobody_left(double seconds = 30) const;

 private:
  TemporaryFolder folder_;
  Words options_;
};

/// Both runs took the same steps 1 to `step`, with the same losses and gradient norms to the last digit, and their
/// checkpoints of that step hold the same bytes.
void expect_same_bits(const Training& a, const Training& b, std::int64_t step);

/// The name of this host, as ranks report it.
std::string host_name();

}  // namespace weft::test
