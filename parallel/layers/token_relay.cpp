#include "parallel/layers/token_relay.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/kernels/table.hpp"

namespace weft {
namespace {

Range part_of(std::int64_t batch, std::int64_t parts, std::int64_t index) {
  return share_of(batch, static_cast<int>(parts), static_cast<int>(index));
}

/// One more level behind those of the work that another rank does first.
Cost after(Cost cost, const Cost& others) {
  cost.depth += others.depth;
  cost.min_depth += others.min_depth;
  return cost;
}

Cost moved(const Tensor& x) { return {0, 2 * static_cast<double>(x.view().bytes()), 1, 0}; }

/// One input in parts of its first dim, which share its memory. Their gradients, which come from the last part to the first,
/// find their places in one tensor.
class Split {
 public:
  Split(Tensor x, std::int64_t parts) : x_(std::move(x)), parts_(parts) {}

  Tensor take(OpContext& cx, std::int64_t index) {
    if (!x_.defined()) return {};
    const Range range = part_of(x_.shape()[0], parts_, index);
    Tensor part = x_.slice(range.begin, range.end).detached();
    if (cx.recording() && x_.on_tape())
      cx.tape->record({"split_batch", {&x_}, {&part}, {}, {}, moved(part)},
                      [whole = whole_, range, last = index == parts_ - 1, first = index == 0, shape = x_.shape(),
                       dtype = x_.dtype()](BackwardPass& pass) {
                        ExecContext& exec = pass.exec();
                        if (last) *whole = Tensor::empty(exec.memory(), shape, dtype, MemoryUse::activation);
                        exec.kernels().elementwise.copy(exec, pass.grad(0).view(),
                                                        whole->mut().slice(range.begin, range.end));
                        if (first) pass.give(0, std::exchange(*whole, {}));
                      });
    return part;
  }

 private:
  Tensor x_;
  std::int64_t parts_;
  std::shared_ptr<Tensor> whole_ = std::make_shared<Tensor>();  ///< the gradient
};

}  // namespace

TokenRelay::TokenRelay(const BuildContext& build, std::int64_t states, std::int64_t width)
    : group_(build.mesh.comm(Axis::sp)), parts_(build.sharding.relay_parts), states_(states), width_(width) {
  WEFT_CHECK(group_.size() == 1 || build.sharding.contiguous_tokens, "a recurrence over ranks wants contiguous tokens");
}

std::int64_t TokenRelay::parts_of(std::int64_t batch) const {
  // More parts fill the ranks better, until a step of so few sequences costs as much as one of more.
  constexpr std::int64_t least_sequences = 4;
  const std::int64_t wanted =
      parts_ > 0 ? parts_ : std::min<std::int64_t>(4 * (group_.size() - 1), batch / least_sequences);
  return std::clamp<std::int64_t>(wanted, 1, batch);
}

TokenRelay::Output TokenRelay::run(OpContext& cx, std::vector<Tensor> inputs, std::vector<Tensor> first,
                                   const Recurrence& recurrence, const StepsCost& cost) const {
  if (group_.size() == 1) return recurrence(cx, std::move(inputs), std::move(first));
  WEFT_CHECK(first.empty(), "sequences over ranks carry no state from call to call");
  const std::int64_t batch = inputs.front().shape()[0], parts = parts_of(batch);
  std::vector<Split> split;
  for (Tensor& input : inputs) split.emplace_back(std::move(input), parts);
  inputs.clear();
  Tensor whole;
  const auto append = [&](const Tensor& y, Range range) {
    if (!whole.defined()) {
      Shape shape = y.shape();
      shape[0] = batch;
      whole = cx.empty(shape, y.dtype());
    }
    cx.kernels().elementwise.copy(cx.exec, y.view(), whole.mut().slice(range.begin, range.end));
    if (!cx.recording()) return;
    const Tensor before = whole;
    whole = before.detached();
    cx.tape->record({"join_batch", {&before, &y}, {&whole}, {}, moved(y), {}}, [range](BackwardPass& pass) {
      pass.give(0, pass.grad(0));
      pass.give(1, pass.grad(0).slice(range.begin, range.end));
    });
  };
  for (std::int64_t i = 0; i < parts; ++i) {
    const Range range = part_of(batch, parts, i);
    std::vector<Tensor> part;
    for (Split& input : split) part.push_back(input.take(cx, i));
    std::vector<Tensor> before = receive(cx, part.front(), range.size(), cost);
    group_.working();
    const Output out = recurrence(cx, std::move(part), std::move(before));
    append(hand_on(cx, out, range.size(), cost), range);
  }
  return {whole, {}};
}

std::vector<Tensor> TokenRelay::receive(OpContext& cx, const Tensor& with, std::int64_t batch,
                                        const StepsCost& cost) const {
  if (group_.rank() == 0) return {};
  const int before = group_.rank() - 1;
  std::vector<Tensor> states = receive_from(cx.exec, before, batch);
  if (!cx.recording()) return states;
  states.resize(most_states);
  cx.tape->record({"relay_receive",
                   {&with},
                   {&states[0], &states[1]},
                   {},
                   after(moved(states[0]), cost(cx.tokens.begin[0]).first),
                   moved(states[0])},
                  [this, before, batch](BackwardPass& pass) {
                    send_to(pass.exec(), before, {pass.grad(0), pass.grad(1)}, batch);
                  });
  states.resize(static_cast<std::size_t>(states_));
  return states;
}

Tensor TokenRelay::hand_on(OpContext& cx, const Output& part, std::int64_t batch, const StepsCost& cost) const {
  const int next = group_.rank() + 1;
  if (next == group_.size()) return part.y;
  send_to(cx.exec, next, part.last, batch);
  if (!cx.recording()) return part.y;
  Tensor y = part.y.detached();
  std::vector<Tensor> last = part.last;
  last.resize(most_states);
  const std::int64_t behind = cx.tokens.seq_global - cx.tokens.begin[0] - cx.tokens.seq_local;
  cx.tape->record({"relay_hand_on",
                   {&part.y, &last[0], &last[1]},
                   {&y},
                   {},
                   moved(last[0]),
                   after(moved(last[0]), cost(behind).second)},
                  [this, next, batch](BackwardPass& pass) {
                    pass.give(0, pass.grad(0));
                    const std::vector<Tensor> states = receive_from(pass.exec(), next, batch);
                    for (std::size_t i = 0; i < states.size(); ++i) pass.give(1 + static_cast<int>(i), states[i]);
                  });
  return y;
}

std::vector<Tensor> TokenRelay::receive_from(ExecContext& exec, int rank, std::int64_t batch) const {
  const Tensor message = Tensor::empty(exec.memory(), {states_ * batch, width_}, DType::f32, MemoryUse::activation);
  group_.recv(message.mut(), rank, 0, message.keep_alive()).wait();
  group_.working();
  std::vector<Tensor> states;
  for (std::int64_t i = 0; i < states_; ++i) states.push_back(message.slice(i * batch, (i + 1) * batch));
  return states;
}

void TokenRelay::send_to(ExecContext& exec, int rank, const std::vector<Tensor>& states, std::int64_t batch) const {
  const Tensor message = Tensor::empty(exec.memory(), {states_ * batch, width_}, DType::f32, MemoryUse::activation);
  const ElementwiseKernels& kernels = exec.kernels().elementwise;
  for (std::int64_t i = 0; i < states_; ++i) {
    const MutView to = message.mut().slice(i * batch, (i + 1) * batch);
    const Tensor& state = states[static_cast<std::size_t>(i)];
    if (state.defined())
      kernels.copy(exec, state.view(), to);
    else
      kernels.fill(exec, 0.0f, to);
  }
  group_.send(message.view(), rank, 0, message.keep_alive()).wait();
}

}  // namespace weft
