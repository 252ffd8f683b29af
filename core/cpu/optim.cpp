#include <cmath>

#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

constexpr std::int64_t line = 64;  // elements

const StepState& state_of(const View& state) {
  WEFT_CHECK(state.bytes() == sizeof(StepState), "{} bytes of step state", state.bytes());
  return *static_cast<const StepState*>(state.data);
}

void prepare(ExecContext&, View sum_of_squares, View loss, float max_norm, MutView state) {
  WEFT_CHECK(state.bytes() == sizeof(StepState), "{} bytes of step state", state.bytes());
  auto& step = *static_cast<StepState*>(state.data);
  step.grad_norm = static_cast<float>(std::sqrt(*sum_of_squares.as<double>()));
  step.skip = !std::isfinite(step.grad_norm) || (loss && !std::isfinite(*loss.as<double>()));
  step.clip_scale = max_norm > 0 && step.grad_norm > max_norm ? max_norm / step.grad_norm : 1.0f;
  if (!step.skip) ++step.applied;
}

template <const VecKernels& vec>
void run_adam(ExecContext& exec, const AdamArgs& args, std::int64_t count) {
  for_ranges(threads_for(exec, count, count * 28), count, line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.adam(args, begin, end); });
}

template <class Spec>
AdamArgs adam_args(const StepState& step, const Spec& spec, const View& grad, const MutView& value, const MutView& m,
                   const MutView& v) {
  return {.grad = floats(grad),
          .value = floats(value),
          .m = floats(m),
          .v = floats(v),
          .beta1 = spec.beta1,
          .rest1 = static_cast<float>(1.0 - static_cast<double>(spec.beta1)),
          .beta2 = spec.beta2,
          .rest2 = static_cast<float>(1.0 - static_cast<double>(spec.beta2)),
          .eps = spec.eps,
          .grad_scale = step.clip_scale,
          .decay = static_cast<float>(1.0 - static_cast<double>(step.lr) * static_cast<double>(spec.weight_decay)),
          .step_size = 0,
          .v_scale = 1};
}

template <const VecKernels& vec>
void adamw(ExecContext& exec, View state, AdamWSpec spec, View grad, MutView value, MutView m, MutView v) {
  const StepState& step = state_of(state);
  check_optim(grad, value, m, v);
  if (step.skip) return;
  const auto t = static_cast<double>(step.applied);
  AdamArgs args = adam_args(step, spec, grad, value, m, v);
  args.step_size =
      static_cast<float>(static_cast<double>(step.lr) / (1 - std::pow(static_cast<double>(spec.beta1), t)));
  args.v_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(static_cast<double>(spec.beta2), t)));
  run_adam<vec>(exec, args, grad.numel());
}

template <const VecKernels& vec>
void radam(ExecContext& exec, View state, RAdamSpec spec, View grad, MutView value, MutView m, MutView v) {
  const StepState& step = state_of(state);
  check_optim(grad, value, m, v);
  if (step.skip) return;
  const auto t = static_cast<double>(step.applied);
  const double beta2 = static_cast<double>(spec.beta2), beta2_t = std::pow(beta2, t);
  const double longest = 2 / (1 - beta2) - 1, length = longest - 2 * t * beta2_t / (1 - beta2_t);
  AdamArgs args = adam_args(step, spec, grad, value, m, v);
  if (length >= 5) {
    const double rectified =
        std::sqrt((1 - beta2_t) * (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2));
    args.step_size = static_cast<float>(static_cast<double>(step.lr) * rectified /
                                        (1 - std::pow(static_cast<double>(spec.beta1), t)));
  }
  run_adam<vec>(exec, args, grad.numel());
}

template <const VecKernels& vec>
void sgd(ExecContext& exec, View state, SgdSpec spec, View grad, MutView value, MutView momentum) {
  const StepState& step = state_of(state);
  check_optim(grad, value, momentum, {});
  if (step.skip) return;
  WEFT_CHECK(spec.momentum == 0 || momentum || grad.numel() == 0, "momentum {} without a buffer", spec.momentum);
  // A buffer of zeros gives the first step momentum·0 + grad, which is what it must be.
  const SgdArgs args{.grad = floats(grad),
                     .value = floats(value),
                     .momentum_buffer = spec.momentum == 0 ? nullptr : floats(momentum),
                     .momentum = spec.momentum,
                     .weight_decay = spec.weight_decay,
                     .lr = step.lr,
                     .grad_scale = step.clip_scale,
                     .nesterov = spec.nesterov};
  for_ranges(threads_for(exec, grad.numel(), grad.numel() * 20), grad.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.sgd(args, begin, end); });
}

}  // namespace

void bind_optim(KernelTable& table, Isa isa) {
  table.optim.prepare.bind(prepare);
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.optim.adamw.bind(adamw<vec>);
    table.optim.sgd.bind(sgd<vec>);
    table.optim.radam.bind(radam<vec>);
  });
}

}  // namespace weft::cpu
