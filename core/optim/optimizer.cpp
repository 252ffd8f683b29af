#include "core/optim/optimizer.hpp"

#include <cstddef>

namespace weft {

Optimizer::Optimizer(const OptimizerSpec& spec, ParameterStore& store, ExecContext& exec) : spec_(spec), store_(store) {
  const auto& places = store.places();
  const std::int64_t size = store.flat_values().numel();
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::int64_t end = i + 1 < places.size() ? places[i + 1].offset : size;
    const bool decayed = places[i].parameter->decayed();
    if (!ranges_.empty() && ranges_.back().decayed == decayed)
      ranges_.back().end = end;
    else
      ranges_.push_back({places[i].offset, end, decayed});
  }
  const std::vector<std::string> names =
      std::holds_alternative<SgdSpec>(spec) ? std::vector<std::string>{"momentum"} : std::vector<std::string>{"m", "v"};
  for (const std::string& name : names) {
    moments_.push_back({name, Tensor::empty(exec.memory(), {size}, DType::f32, MemoryUse::optimizer)});
    exec.kernels().elementwise.fill(exec, 0.0f, moments_.back().flat.mut());
  }
  state_ = Tensor::empty(exec.memory(), {std::int64_t{sizeof(StepState)}}, DType::u8, MemoryUse::optimizer);
  write_state(exec, {});
}

void Optimizer::write_state(ExecContext& exec, const StepState& state) {
  exec.kernels().transfer.upload(exec, View(&state, {std::int64_t{sizeof state}}, DType::u8), state_.mut());
}

StepState Optimizer::read_state(ExecContext& exec) const {
  StepState state;
  exec.kernels().transfer.download(exec, state_.view(), MutView(&state, {std::int64_t{sizeof state}}, DType::u8));
  return state;
}

void Optimizer::set_rate(ExecContext& exec, float lr) {
  static_assert(offsetof(StepState, lr) == 0);
  constexpr std::int64_t size = sizeof lr;
  exec.kernels().transfer.upload(exec, View(&lr, {size}, DType::u8), state_.mut().slice(0, size));
}

void Optimizer::set_applied(ExecContext& exec, std::int64_t applied) {
  StepState state;
  state.applied = applied;
  write_state(exec, state);
}

void Optimizer::update(ExecContext& exec, const Range& range) {
  const OptimKernels& kernels = exec.kernels().optim;
  const auto part = [&](const Tensor& flat) { return flat.mut().slice(range.begin, range.end); };
  const View grad = part(store_.flat_grads());
  const MutView value = part(store_.flat_values());
  std::visit(
      [&](auto spec) {
        if (!range.decayed) spec.weight_decay = 0;
        if constexpr (std::is_same_v<decltype(spec), AdamWSpec>)
          kernels.adamw(exec, state_.view(), spec, grad, value, part(moments_[0].flat), part(moments_[1].flat));
        else if constexpr (std::is_same_v<decltype(spec), RAdamSpec>)
          kernels.radam(exec, state_.view(), spec, grad, value, part(moments_[0].flat), part(moments_[1].flat));
        else
          kernels.sgd(exec, state_.view(), spec, grad, value, part(moments_[0].flat));
      },
      spec_);
}

void Optimizer::step(ExecContext& exec, View sum_of_squares, View loss, float max_norm) {
  exec.kernels().optim.prepare(exec, sum_of_squares, loss, max_norm, state_.mut());
  for (const Range& range : ranges_) update(exec, range);
  for (Parameter* parameter : store_.all()) parameter->changed();
}

}  // namespace weft
