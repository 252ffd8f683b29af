// One optimizer step: micro-batches forward and backward, gradient sums, clipping, update.
#pragma once
#include <array>
#include <cstdint>
#include <memory>

#include "core/data/sampler.hpp"
#include "core/optim/optimizer.hpp"
#include "launcher/model_setup.hpp"
#include "launcher/session.hpp"
#include "parallel/grad_buckets.hpp"
#include "parallel/shared_values.hpp"

namespace weft {

/// Products of this many rows run at their full rate; more tokens at a time would only hold more activations.
inline constexpr std::int64_t tokens_at_a_time = 4096;

/// Whether steps are recorded once and replayed as a whole where the device and the communication can.
enum class StepReplay : std::uint8_t { automatic, off };

struct StepOptions {
  std::int64_t batch = 1;        ///< global, in sequences
  std::int64_t micro_batch = 1;  ///< sequences a rank takes at a time
  std::int64_t seq = 1;
  std::uint64_t seed = 0;
  float clip = 0;
  DType compute = DType::f32;
  ShardingOptions sharding;  ///< as the model was built with
  BucketOptions buckets;
  Recompute recompute = Recompute::none;
  StepReplay replay = StepReplay::automatic;
};

/// What ranks tell each other with a step: what any of them says reaches all in its result.
struct StepNotes {
  bool stop = false;    ///< it wants to stop
  bool saving = false;  ///< it still works at a save
};

struct StepResult {
  std::int64_t step = 0;
  double loss = 0;           ///< mean over the global batch
  double grad_norm = 0;      ///< before clipping
  bool skipped = false;      ///< the loss or a gradient was not finite
  std::int64_t applied = 0;  ///< steps not skipped so far
  StepNotes notes;           ///< of any rank
  double flops = 0;          ///< on this rank, forward and backward
};

/// A batch's tokens i32 [count, seq] on the device, and its loss targets.
class DeviceBatch {
 public:
  DeviceBatch(ExecContext& exec, std::int64_t count, std::int64_t seq);
  /// Copies a batch of that size.
  void fill(ExecContext& exec, const Batch& batch);
  Tensor tokens(std::int64_t first, std::int64_t count) const { return tokens_.slice(first, first + count); }
  /// Their targets, with weights as they are.
  ops::LossTargets targets(std::int64_t first, std::int64_t count) const;

 private:
  std::int64_t seq_;
  Tensor tokens_;
  Tensor targets_;
  Tensor weights_;
};

class TrainingStep {
 public:
  TrainingStep(const Worker& worker, BuiltModel& built, Optimizer& optimizer, const Sampler& sampler,
               StepOptions options);

  ~TrainingStep();
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// Starts step 1, 2, … on samples [first_sample, first_sample + batch). At most most_in_flight steps may be started and not
  /// finished.
  void start(std::int64_t step, std::int64_t first_sample, double lr, StepNotes notes = {});
  /// The result of the oldest step in flight, when it is there.
  StepResult finish();
  int in_flight() const { return in_flight_; }
  static constexpr int most_in_flight = 2;

  /// start and finish.
  StepResult run(std::int64_t step, std::int64_t first_sample, double lr, StepNotes notes = {});

  /// Waits until this rank has all parameters that it keeps, for readers that are no operations.
  void settle() { values_.settle(); }

  /// What made the last finished step be skipped: the first parameter, in the model's order, whose value is not finite,
  /// else the first whose gradient is not (with the loss, if that is not either), else the loss or the gradients' norm. A
  /// step that was started since has gradients of its own in their place: then just the loss, or a gradient. Collective.
  std::string find_nonfinite(const StepResult& result);

 private:
  /// What the host reads of a step, and when it is there.
  struct Readback {
    std::int64_t step = 0;
    Tensor host;  ///< bytes: the scalars, then the StepState
    std::unique_ptr<Event> there;
  };

  void prepare(std::int64_t first_sample);
  void upload_inputs(std::int64_t step, double lr, StepNotes notes);
  void compute();
  void compute_or_replay();
  void forward_backward(std::int64_t first, std::int64_t count, MicroBatch kind);
  void sum_squares();
  void read_back(std::int64_t step);
  std::int64_t local() const;

  Worker worker_;
  BuiltModel& built_;
  Optimizer& optimizer_;
  const Sampler& sampler_;
  StepOptions options_;
  Communicator& replicas_;  ///< of this rank's shards: dp and sp
  Communicator& all_;
  GradBuckets buckets_;
  SharedValues values_;
  std::vector<Range> counted_;
  TokenMap tokens_;  ///< of this rank in each sequence
  Tape tape_;
  Batch batch_;                        ///< the sampler's, for the step that comes
  std::int64_t prepared_sample_ = -1;  ///< the first of batch_; -1: none
  DeviceBatch inputs_;
  Tensor weight_sum_;  ///< f64[1] on the host
  Tensor dropout_keys_;
  Tensor scalars_;         ///< f64[3]: loss, how many ranks stop, how many save
  Tensor sum_of_squares_;  ///< f64
  double flops_ = 0;
  Work weights_;
  Work shared_;
  std::array<Readback, most_in_flight> readbacks_;
  int next_readback_ = 0;
  int in_flight_ = 0;
  int computed_ = 0;  ///< steps that were not replayed
  std::unique_ptr<WorkGraph> graph_;
};

}  // namespace weft
