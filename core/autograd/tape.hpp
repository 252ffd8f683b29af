// The tape: models write only the forward pass; operations record themselves with their backward and their cost.
// Backward walks the records from the end in a loop (no recursion) and frees each as soon as it has run.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "core/autograd/ledger.hpp"
#include "core/autograd/parameter.hpp"
#include "core/kernels/exec.hpp"
#include "core/tensor/tensor.hpp"

namespace weft {

class Tape;

/// What a recorded backward sees. It must not write into the gradients that it is given.
class BackwardPass {
 public:
  /// Gradient of output i; undefined if nothing depends on it.
  const Tensor& grad(int output) const { return grads_[static_cast<std::size_t>(output)]; }
  /// Whether input i leads to a parameter.
  bool needs(int input) const;
  /// Adds to the gradient of input i; `grad` may be shared with the gradient of an output.
  void give(int input, Tensor grad);
  ExecContext& exec() const { return exec_; }
  Tensor empty_like(const Tensor& like) const;

 private:
  friend class Tape;
  BackwardPass(Tape& tape, ExecContext& exec, std::span<const ValueId> inputs, std::vector<Tensor>& grads)
      : tape_(tape), exec_(exec), inputs_(inputs), grads_(grads) {}
  Tape& tape_;
  ExecContext& exec_;
  std::span<const ValueId> inputs_;
  std::vector<Tensor>& grads_;
};

using BackwardFunction = std::function<void(BackwardPass&)>;

/// One operation as recorded. Inputs and parameters may be null.
struct Recording {
  std::string_view op;  ///< a string with static storage
  std::initializer_list<const Tensor*> inputs;
  std::initializer_list<Tensor*> outputs;
  std::initializer_list<Parameter*> parameters;
  Cost forward;
  Cost backward;
};

/// A part of a forward pass that can run again: outputs from inputs, recorded on the tape that it is given.
using Segment = std::function<std::vector<Tensor>(Tape&, std::span<const Tensor>)>;

/// Which micro-batch of the step is recorded; gradients are ready after the last one's backward.
enum class MicroBatch : std::uint8_t { inner, last };

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Drops what was recorded and starts a micro-batch.
  void begin(MicroBatch micro_batch);

  /// Marks a tensor that is no operation's output as one whose gradient is wanted; read it with `grad_of` after backward.
  void watch(Tensor& leaf);

  /// Gives each output its place if an input is on the tape or a parameter takes part; otherwise only costs are kept.
  void record(const Recording& recording, BackwardFunction backward);

  /// Runs `segment` and keeps of it only its inputs; backward runs it again, on a tape of its own, before it goes through
  /// it (Chen et al. 2016). Inputs may be undefined. What the segment reads besides must be the same in backward.
  /// Parameters' uses count once, the second run's cost stands apart in the ledger.
  std::vector<Tensor> checkpoint(std::vector<Tensor> inputs, Segment segment);

  /// Runs every record from the end, with gradient `seed` (or ones of its own kind, if undefined) at `root`; each record
  /// is freed after it ran. Parameters whose last use is done fire their hook at once.
  void backward(ExecContext& exec, const Tensor& root, Tensor seed = {});

  /// Gradient of a watched tensor after backward; undefined if nothing reached it.
  Tensor grad_of(const Tensor& leaf) const;

  const CostLedger& ledger() const { return ledger_; }
  std::size_t size() const { return nodes_.size(); }

 private:
  friend class BackwardPass;
  struct Node {
    std::string_view op;
    std::vector<ValueId> inputs;
    std::vector<ValueId> outputs;
    std::vector<Parameter*> parameters;
    Cost cost;
    BackwardFunction backward;
    Segment segment;  // of a checkpoint, which has no backward of its own
    std::vector<Tensor> inputs_kept;
  };
  struct Value {
    Tensor grad;
    double depth = 0, min_depth = 0;            // forward
    double grad_depth = 0, grad_min_depth = 0;  // backward
    bool watched = false;
  };
  /// How a tape records: for itself, for a checkpoint that keeps nothing, or a checkpoint's second run.
  enum class Mode : std::uint8_t { whole, outline, replay };
  /// Whether a gradient reached the node.
  bool run(ExecContext& exec, Node& node);
  void run_all(ExecContext& exec);
  void run_again(ExecContext& exec, const Node& node, std::span<Tensor> grads, double depth, double min_depth);
  void accumulate(ExecContext& exec, ValueId id, Tensor grad);

  std::vector<Node> nodes_;
  std::vector<Value> values_;
  CostLedger ledger_;
  MicroBatch micro_batch_ = MicroBatch::last;
  Mode mode_ = Mode::whole;
  std::vector<Parameter*> outlined_;  // uses in the checkpoint that is being recorded
};

/// Declares every parameter ready whose gradient the last micro-batch did not reach; one that no micro-batch reached gets
/// a zero gradient.
void finish_unused(ExecContext& exec, std::span<Parameter* const> parameters);

}  // namespace weft
