// The training run: steps, validation, checkpoints, signals and limits.
#pragma once
#include <deque>
#include <memory>

#include "core/data/dataset.hpp"
#include "launcher/commands.hpp"
#include "launcher/evaluation.hpp"
#include "launcher/progress.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/run_lock.hpp"
#include "launcher/training_step.hpp"
#include "parallel/checkpoint_save.hpp"

namespace weft {

class Trainer {
 public:
  /// Opens the data, builds and initialises the model, and resumes where a checkpoint says so. Throws UserError on bad
  /// input before anything is written.
  Trainer(const Options& options, Session& session);
  ~Trainer();

  /// Until the last step, a stop signal or the time limit. Throws Error when the run cannot go on.
  ExitStatus run();

 private:
  std::filesystem::path find_start();
  void take_folder();
  void start_or_resume();
  void open_outputs();
  std::filesystem::path find_tokenizer() const;
  void open_flight_recorder();
  void read_earlier_rows();
  bool validation_is_due() const;
  std::string describe_device();
  void check_memory(const LmConfig& config, const StepOptions& step, std::size_t bucket_bytes);
  bool is_due(std::int64_t step, std::int64_t every) const;
  bool validates_after(std::int64_t step) const;
  bool pauses_after(std::int64_t step) const;
  /// Keeps the device busy and takes the next step's result; true: some rank asked to stop.
  bool step();
  void start_step();
  bool take_result();
  EvaluationOptions evaluation_options() const;
  void validate();
  /// Starts to save, after the end of the save before; where it is not asynchronous, or training stops, saves.
  void save();
  /// Collective, when no rank works at the save any more.
  void go_on_saving();
  void finish_saving();
  void saved();
  bool saves_beside() const;
  const FileSystem& files() const { return test_files_ ? *test_files_ : FileSystem::posix(); }
  bool time_is_up(double seconds) const;
  void check_skipped(const StepResult& result);
  void report(const StepResult& result, double seconds, double lr, double exposed_ms);
  ExitStatus finish(ExitStatus status);
  void write_outcome(const std::string& status);
  double elapsed() const;

  Options options_;
  Session& session_;
  std::string config_;
  std::filesystem::path checkpoints_;
  std::filesystem::path started_from_;
  std::size_t checkpoints_found_ = 0;  ///< in this run's folder, on the main rank
  Dataset data_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<EvalWindows> valid_;
  std::unique_ptr<BuiltModel> built_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<TrainingStep> training_;
  Schedule schedule_;
  DType compute_ = DType::f32;
  ShardingOptions sharding_;
  RunState state_;
  std::unique_ptr<RunLock> lock_;       ///< on the main rank
  std::unique_ptr<RunFolder> folder_;   ///< on the main rank
  std::unique_ptr<Progress> progress_;  ///< on the main rank
  std::vector<double> rates_;
  double began_ = 0;
  double seconds_before_ = 0;       ///< of earlier starts of this run
  std::deque<double> steps_begun_;  ///< when the steps in flight were started
  double result_taken_ = 0;         ///< when the last one's result came
  double exposed_before_ = 0;
  double longest_step_ = 0;
  double longest_validation_ = 0;
  double longest_save_ = 0;
  std::unique_ptr<FileSystem> test_files_;    ///< null: the real ones
  std::unique_ptr<SnapshotMemory> snapshot_;  ///< null: saves are not asynchronous
  std::unique_ptr<CheckpointSave> save_;      ///< in progress
  double save_begun_ = 0;
  bool save_is_good_ = false;  ///< of parameters that no skipped step may have spoiled
  std::int64_t saved_step_ = -1;
  std::string save_error_;
  std::optional<double> best_valid_;
  bool owes_validation_ = false;  ///< a stop came before or during it
  bool stopping_ = false;
};

}  // namespace weft
