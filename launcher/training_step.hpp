// One optimizer step: micro-batches forward and backward, gradient sums, clipping, update.
#pragma once
#include <cstdint>

#include "core/data/sampler.hpp"
#include "core/optim/optimizer.hpp"
#include "launcher/model_setup.hpp"
#include "launcher/session.hpp"
#include "parallel/grad_buckets.hpp"

namespace weft {

/// Products of this many rows run at their full rate; more tokens at a time would only hold more activations.
inline constexpr std::int64_t tokens_at_a_time = 4096;

struct StepOptions {
  std::int64_t batch = 1;        ///< global, in sequences
  std::int64_t micro_batch = 1;  ///< sequences a rank takes at a time
  std::int64_t seq = 1;
  std::uint64_t seed = 0;
  float clip = 0;
  DType compute = DType::f32;
  BucketOptions buckets;
};

struct StepResult {
  double loss = 0;        ///< mean over the global batch
  double grad_norm = 0;   ///< before clipping
  bool skipped = false;   ///< the loss or a gradient was not finite
  bool stop = false;      ///< some rank asked to stop
  double flops = 0;       ///< on this rank, forward and backward
};

class TrainingStep {
 public:
  TrainingStep(const Worker& worker, BuiltModel& built, Optimizer& optimizer, const Sampler& sampler, StepOptions options);

  ~TrainingStep();
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// Step 1, 2, …; samples [first_sample, first_sample + batch). `stop` of any rank reaches all in the result.
  StepResult run(std::int64_t step, std::int64_t first_sample, double lr, bool stop);

  /// What made a step be skipped: the first parameter, in the model's order, whose value is not finite, else the first
  /// whose gradient is not (with the loss, if that is not either), else the loss or the gradients' norm.
  std::string find_nonfinite(const StepResult& result) const;

 private:
  double forward_backward(std::int64_t first, std::int64_t count, double total_weight, MicroBatch kind);
  void draw_dropout_keys(std::int64_t step);

  Worker worker_;
  BuiltModel& built_;
  Optimizer& optimizer_;
  const Sampler& sampler_;
  StepOptions options_;
  Communicator& replicas_;
  GradBuckets buckets_;
  Tape tape_;
  Batch batch_;
  Tensor dropout_keys_;
  Tensor scalars_;         ///< f64: loss, stop
  Tensor weight_sum_;      ///< f64
  Tensor sum_of_squares_;  ///< f64
  double flops_ = 0;
  Work weights_;
  Work shared_;
};

/// tokens i32 [count, seq] of a batch on the device, and its loss targets.
struct DeviceBatch {
  DeviceBatch(Allocator& memory, const Batch& batch, std::int64_t first, std::int64_t count);
  Tensor tokens;
  Tensor targets;
  Tensor weights;
};

}  // namespace weft
