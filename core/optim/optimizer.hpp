// Optimizers over a model's flat parameter storage.
#pragma once
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/kernels/table.hpp"
#include "core/nn/parameter_store.hpp"

namespace weft {

using OptimizerSpec = std::variant<AdamWSpec, SgdSpec, RAdamSpec>;

class Optimizer {
 public:
  /// State starts at zero, laid out as a buffer of the parts that this rank keeps: it updates those.
  Optimizer(const OptimizerSpec& spec, ParameterStore& store, ExecContext& exec);

  /// The learning rate of the next step.
  void set_rate(ExecContext& exec, float lr);

  /// Gradient norm, clipping and the skip decision from Σ grad² (f64[1], over all ranks) and the step's loss (f64[1] or
  /// empty), then one update of every parameter, all on the device. max_norm 0 does not clip.
  void step(ExecContext& exec, View sum_of_squares, View loss, float max_norm);

  /// The StepState in device memory, as bytes.
  const Tensor& state() const { return state_; }
  /// The same on the host; waits for the device.
  StepState read_state(ExecContext& exec) const;
  /// Steps not skipped so far, from a checkpoint.
  void set_applied(ExecContext& exec, std::int64_t applied);

  /// A state tensor for checkpoints; ParameterStore::stored_state() finds a parameter's part.
  struct Moment {
    std::string name;  ///< "m", "v" or "momentum"
    Tensor flat;
  };
  const std::vector<Moment>& moments() const { return moments_; }

 private:
  /// Neighbouring parameters under the same decay, updated by one kernel.
  struct Run {
    std::int64_t value, grad, state;  ///< where it begins in each flat buffer
    std::int64_t count;
    bool decayed;
  };
  void update(ExecContext& exec, const Run& run);
  void write_state(ExecContext& exec, const StepState& state);

  OptimizerSpec spec_;
  ParameterStore& store_;
  std::vector<Run> runs_;
  std::vector<Moment> moments_;
  Tensor state_;
};

}  // namespace weft
