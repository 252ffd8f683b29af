#include "core/autograd/tape.hpp"

#include <algorithm>
#include <utility>

#include "core/kernels/table.hpp"

namespace weft {

bool BackwardPass::needs(int input) const { return inputs_[static_cast<std::size_t>(input)] != no_value; }

void BackwardPass::give(int input, Tensor grad) {
  const ValueId id = inputs_[static_cast<std::size_t>(input)];
  if (id != no_value) tape_.accumulate(exec_, id, std::move(grad));
}

Tensor BackwardPass::empty_like(const Tensor& like) const {
  return Tensor::empty(exec_.memory(), like.shape(), like.dtype(), MemoryUse::activation);
}

void Tape::begin(MicroBatch micro_batch) {
  // Records are dropped from the end, so that a long chain never unwinds recursively.
  while (!nodes_.empty()) nodes_.pop_back();
  values_.clear();
  ledger_.clear();
  // An error may have ended the last pass within a checkpoint.
  mode_ = Mode::whole;
  outlined_.clear();
  micro_batch_ = micro_batch;
}

void Tape::watch(Tensor& leaf) {
  leaf.set_value(static_cast<ValueId>(values_.size()));
  values_.emplace_back().watched = true;
}

void Tape::record(const Recording& recording, BackwardFunction backward) {
  Node node;
  node.op = recording.op;
  node.cost = recording.backward;
  double depth = 0, min_depth = 0;
  bool needed = false;
  for (const Tensor* input : recording.inputs) {
    const ValueId id = input && input->defined() ? input->value() : no_value;
    node.inputs.push_back(id);
    if (id == no_value) continue;
    needed = true;
    depth = std::max(depth, values_[id].depth);
    min_depth = std::max(min_depth, values_[id].min_depth);
  }
  for (Parameter* parameter : recording.parameters)
    if (parameter) node.parameters.push_back(parameter);
  needed = needed || !node.parameters.empty();
  depth += recording.forward.depth;
  min_depth += recording.forward.min_depth;
  const Pass pass = mode_ == Mode::replay ? Pass::recomputed : Pass::forward;
  ledger_.add({recording.op, pass, recording.forward, depth, min_depth});
  if (!needed) return;
  for (Tensor* output : recording.outputs) {
    if (!output || !output->defined()) {
      node.outputs.push_back(no_value);
      continue;
    }
    const auto id = static_cast<ValueId>(values_.size());
    values_.emplace_back();
    values_.back().depth = depth;
    values_.back().min_depth = min_depth;
    output->set_value(id);
    node.outputs.push_back(id);
  }
  // A checkpoint's uses were counted the first time.
  if (micro_batch_ == MicroBatch::last && mode_ != Mode::replay)
    for (Parameter* parameter : node.parameters) parameter->count_use();
  if (mode_ == Mode::outline) {
    outlined_.insert(outlined_.end(), node.parameters.begin(), node.parameters.end());
    return;
  }
  node.backward = std::move(backward);
  nodes_.push_back(std::move(node));
}

std::vector<Tensor> Tape::checkpoint(std::vector<Tensor> inputs, Segment segment) {
  WEFT_CHECK(mode_ != Mode::outline, "a checkpoint within a checkpoint");
  const Mode before = std::exchange(mode_, Mode::outline);
  std::vector<Tensor> outputs = segment(*this, inputs);
  mode_ = before;
  Node node;
  node.op = "checkpoint";
  node.cost = {0, 0, 0, 0};
  node.parameters = std::exchange(outlined_, {});
  bool needed = false;
  for (const Tensor& output : outputs) {
    node.outputs.push_back(output.defined() ? output.value() : no_value);
    needed = needed || node.outputs.back() != no_value;
  }
  if (!needed) return outputs;
  for (Tensor& input : inputs) {
    node.inputs.push_back(input.defined() ? input.value() : no_value);
    input = input.detached();
  }
  node.inputs_kept = std::move(inputs);
  node.segment = std::move(segment);
  nodes_.push_back(std::move(node));
  return outputs;
}

void Tape::accumulate(ExecContext& exec, ValueId id, Tensor grad) {
  WEFT_CHECK(grad.defined());
  Tensor& sum = values_[id].grad;
  if (!sum.defined()) {
    sum = std::move(grad);
    return;
  }
  WEFT_CHECK(sum.shape().numel() == grad.shape().numel() && sum.dtype() == grad.dtype(), "{} and {}",
             to_string(sum.shape()), to_string(grad.shape()));
  const View a = sum.view().reshaped({sum.numel()}), b = grad.view().reshaped({grad.numel()});
  Tensor out = sum.unique() ? sum : Tensor::empty(exec.memory(), sum.shape(), sum.dtype(), MemoryUse::activation);
  exec.kernels().elementwise.add(exec, a, b, out.mut().reshaped({out.numel()}));
  sum = out.detached();
}

bool Tape::run(ExecContext& exec, Node& node) {
  std::vector<Tensor> grads(node.outputs.size());
  double depth = 0, min_depth = 0;
  bool reached = false;
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == no_value) continue;
    Value& value = values_[node.outputs[i]];
    if (!value.grad.defined()) continue;
    reached = true;
    depth = std::max(depth, value.grad_depth);
    min_depth = std::max(min_depth, value.grad_min_depth);
    grads[i] = value.watched ? value.grad : std::move(value.grad);
    if (!value.watched) value.grad = {};
  }
  if (reached) {
    depth += node.cost.depth;
    min_depth += node.cost.min_depth;
    for (const ValueId id : node.inputs) {
      if (id == no_value) continue;
      values_[id].grad_depth = std::max(values_[id].grad_depth, depth);
      values_[id].grad_min_depth = std::max(values_[id].grad_min_depth, min_depth);
    }
    if (node.segment) {
      run_again(exec, node, grads, depth, min_depth);
      return true;
    }
    BackwardPass pass(*this, exec, node.inputs, grads);
    node.backward(pass);
    ledger_.add({node.op, Pass::backward, node.cost, depth, min_depth});
  }
  return reached;
}

void Tape::run_again(ExecContext& exec, const Node& node, std::span<Tensor> grads, double depth, double min_depth) {
  Tape again;
  again.mode_ = Mode::replay;
  again.micro_batch_ = micro_batch_;
  std::vector<Tensor> inputs = node.inputs_kept;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (node.inputs[i] == no_value) continue;
    again.watch(inputs[i]);
    again.values_.back().depth = depth;
    again.values_.back().min_depth = min_depth;
  }
  {
    const std::vector<Tensor> outputs = node.segment(again, inputs);
    // Recomputing is no level that the mathematics needs.
    depth = std::max(depth, again.ledger_.totals(Pass::recomputed).span);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined()) continue;
      again.accumulate(exec, outputs[i].value(), std::move(grads[i]));
      again.values_[outputs[i].value()].grad_depth = depth;
      again.values_[outputs[i].value()].grad_min_depth = min_depth;
    }
  }
  again.run_all(exec);
  for (const CostLedger::Entry& entry : again.ledger_.entries()) ledger_.add(entry);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (node.inputs[i] == no_value) continue;
    Value& inner = again.values_[inputs[i].value()];
    Value& outer = values_[node.inputs[i]];
    outer.grad_depth = std::max(outer.grad_depth, inner.grad_depth);
    outer.grad_min_depth = std::max(outer.grad_min_depth, inner.grad_min_depth);
    if (inner.grad.defined()) accumulate(exec, node.inputs[i], std::move(inner.grad));
  }
}

void Tape::backward(ExecContext& exec, const Tensor& root, Tensor seed) {
  WEFT_CHECK(root.on_tape(), "backward from a tensor that no parameter leads to");
  if (!seed.defined()) {
    seed = Tensor::empty(exec.memory(), root.shape(), root.dtype(), MemoryUse::activation);
    exec.kernels().elementwise.fill(exec, 1.0f, seed.mut());
  }
  values_[root.value()].grad = std::move(seed);
  run_all(exec);
}

void Tape::run_all(ExecContext& exec) {
  while (!nodes_.empty()) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    const bool reached = run(exec, node);
    node.backward = nullptr;
    // The parameters of a segment that ran again were done there.
    if (micro_batch_ != MicroBatch::last || (node.segment && reached)) continue;
    for (Parameter* parameter : node.parameters)
      if (parameter->use_done() && parameter->grad_written()) parameter->declare_ready();
  }
}

Tensor Tape::grad_of(const Tensor& leaf) const { return values_.at(leaf.value()).grad; }

void finish_unused(ExecContext& exec, std::span<Parameter* const> parameters) {
  for (Parameter* parameter : parameters) {
    if (parameter->ready()) continue;
    if (parameter->next_grad_write() == Write::overwrite)
      exec.kernels().elementwise.fill(exec, 0.0f, parameter->grad().mut());
    parameter->declare_ready();
  }
}

}  // namespace weft
