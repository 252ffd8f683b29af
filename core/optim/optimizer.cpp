#include "core/optim/optimizer.hpp"

#include <algorithm>
#include <cstddef>

namespace weft {

Optimizer::Optimizer(const OptimizerSpec& spec, ParameterStore& store, ExecContext& exec) : spec_(spec), store_(store) {
  const auto& places = store.places();
  for (const ParameterStore::Bucket& bucket : store.buckets())
    for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i) {
      const std::int64_t next = i + 1 < bucket.end_place ? places[i + 1].offset : bucket.end;
      const std::int64_t begin = std::max(places[i].offset, bucket.kept.begin), end = std::min(next, bucket.kept.end);
      if (begin >= end) continue;
      const std::int64_t kept = bucket.kept_at + begin - bucket.kept.begin;
      const auto at = [&](FlatExtent extent) { return extent == FlatExtent::whole ? begin : kept; };
      const Run run{at(store.values_extent()), at(store.grads_extent()), kept, end - begin,
                    places[i].parameter->decayed()};
      const Run* last = runs_.empty() ? nullptr : &runs_.back();
      if (last && last->decayed == run.decayed && last->value + last->count == run.value &&
          last->grad + last->count == run.grad && last->state + last->count == run.state)
        runs_.back().count += run.count;
      else
        runs_.push_back(run);
    }
  const std::vector<std::string> names =
      std::holds_alternative<SgdSpec>(spec) ? std::vector<std::string>{"momentum"} : std::vector<std::string>{"m", "v"};
  for (const std::string& name : names) {
    moments_.push_back({name, Tensor::empty(exec.memory(), {store.kept_size()}, DType::f32, MemoryUse::optimizer)});
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

void Optimizer::update(ExecContext& exec, const Run& run) {
  const OptimKernels& kernels = exec.kernels().optim;
  const auto part = [&](const Tensor& flat, std::int64_t at) { return flat.mut().slice(at, at + run.count); };
  const auto state = [&](std::size_t i) { return part(moments_[i].flat, run.state); };
  const View grad = part(store_.flat_grads(), run.grad);
  const MutView value = part(store_.flat_values(), run.value);
  std::visit(
      [&](auto spec) {
        if (!run.decayed) spec.weight_decay = 0;
        if constexpr (std::is_same_v<decltype(spec), AdamWSpec>)
          kernels.adamw(exec, state_.view(), spec, grad, value, state(0), state(1));
        else if constexpr (std::is_same_v<decltype(spec), RAdamSpec>)
          kernels.radam(exec, state_.view(), spec, grad, value, state(0), state(1));
        else
          kernels.sgd(exec, state_.view(), spec, grad, value, state(0));
      },
      spec_);
}

void Optimizer::step(ExecContext& exec, View sum_of_squares, View loss, float max_norm) {
  exec.kernels().optim.prepare(exec, sum_of_squares, loss, max_norm, state_.mut());
  for (const Run& run : runs_) update(exec, run);
  for (Parameter* parameter : store_.all()) parameter->changed();
}

}  // namespace weft
