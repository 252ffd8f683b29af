// Optimizer steps; see core/kernels/optim.hpp. What changes from step to step is read from StepState on the device.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

struct Prepare {
  static constexpr int threads = 32;
  const double* sum_of_squares;
  const double* loss;  // may be null
  float max_norm;
  StepState* state;

  WEFT_DEVICE void operator()(const Block& block) const {
    if (block.thread() != 0) return;
    const float norm = static_cast<float>(std::sqrt(*sum_of_squares));
    const bool skip = !std::isfinite(norm) || (loss && !std::isfinite(*loss));
    state->grad_norm = norm;
    state->skip = skip ? 1 : 0;
    state->clip_scale = max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0f;
    if (!skip) ++state->applied;
  }
};

/// What a step multiplies by. Computed once a call, in f64, since powers are slow.
struct AdamFactors {
  float grad_scale;  ///< of gradients
  float decay;       ///< of values
  float step_size;   ///< value −= step_size·m / (√v·v_scale + eps)
  float v_scale;
  std::int32_t skip;
};

WEFT_DEVICE void set_factors(const StepState& state, const AdamWSpec& spec, AdamFactors& factors) {
  const auto t = static_cast<double>(state.applied);
  factors.step_size = static_cast<float>(static_cast<double>(state.lr) / (1 - pow(static_cast<double>(spec.beta1), t)));
  factors.v_scale = static_cast<float>(1 / std::sqrt(1 - pow(static_cast<double>(spec.beta2), t)));
}

WEFT_DEVICE void set_factors(const StepState& state, const RAdamSpec& spec, AdamFactors& factors) {
  const auto t = static_cast<double>(state.applied);
  const double beta2 = static_cast<double>(spec.beta2), beta2_t = pow(beta2, t);
  const double longest = 2 / (1 - beta2) - 1, length = longest - 2 * t * beta2_t / (1 - beta2_t);
  factors.step_size = 0;
  factors.v_scale = 1;
  if (!(length >= 5)) return;
  const double rectified =
      std::sqrt((1 - beta2_t) * (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2));
  factors.step_size =
      static_cast<float>(static_cast<double>(state.lr) * rectified / (1 - pow(static_cast<double>(spec.beta1), t)));
}

template <class Spec>
struct SetFactors {
  static constexpr int threads = 32;
  const StepState* state;
  Spec spec;
  AdamFactors* factors;

  WEFT_DEVICE void operator()(const Block& block) const {
    if (block.thread() != 0) return;
    AdamFactors found{};
    found.grad_scale = state->clip_scale;
    found.decay = static_cast<float>(1.0 - static_cast<double>(state->lr) * static_cast<double>(spec.weight_decay));
    found.skip = state->skip;
    if (!found.skip) set_factors(*state, spec, found);
    *factors = found;
  }
};

/// body.operator()<Width>(at) for all of [0, count): the first `packs` packs whole, the rest one by one.
template <class Body>
WEFT_DEVICE void for_packs(const Block& block, std::int64_t packs, std::int64_t count, Body&& body) {
  constexpr int width = pack_width<float>;
  for_grid(block, packs, [&](std::int64_t i) { body.template operator()<width>(i * width); });
  for_grid(block, count - packs * width, [&](std::int64_t i) { body.template operator()<1>(packs * width + i); });
}

struct Adam {
  static constexpr int threads = 256;
  const AdamFactors* factors;
  const float* grad;
  float *value, *m, *v;
  float beta1, rest1, beta2, rest2, eps;  // rest = 1 − beta, rounded once
  std::int64_t packs, count;

  WEFT_DEVICE void operator()(const Block& block) const {
    const AdamFactors by = *factors;
    if (by.skip) return;
    for_packs(block, packs, count, [&]<int Width>(std::int64_t at) {
      const auto gradient = load_pack<Width>(grad + at);
      auto first = load_pack<Width>(m + at), second = load_pack<Width>(v + at), values = load_pack<Width>(value + at);
      for (int k = 0; k < Width; ++k) {
        const float g = gradient.at[k] * by.grad_scale;
        first.at[k] = beta1 * first.at[k] + rest1 * g;
        second.at[k] = beta2 * second.at[k] + rest2 * g * g;
        const float update = first.at[k] / (std::sqrt(second.at[k]) * by.v_scale + eps);
        values.at[k] = values.at[k] * by.decay - by.step_size * update;
      }
      store_pack(m + at, first);
      store_pack(v + at, second);
      store_pack(value + at, values);
    });
  }
};

struct Sgd {
  static constexpr int threads = 256;
  const StepState* state;
  const float* grad;
  float* value;
  float* buffer;  // null without momentum
  float momentum, weight_decay;
  bool nesterov;
  std::int64_t packs, count;

  WEFT_DEVICE void operator()(const Block& block) const {
    if (state->skip) return;
    const float lr = state->lr, scale = state->clip_scale;
    for_packs(block, packs, count, [&]<int Width>(std::int64_t at) {
      auto g = load_pack<Width>(grad + at), values = load_pack<Width>(value + at);
      for (int k = 0; k < Width; ++k) g.at[k] = g.at[k] * scale + weight_decay * values.at[k];
      if (buffer) {
        // A buffer of zeros gives the first step momentum·0 + grad, which is what it must be.
        auto moving = load_pack<Width>(buffer + at);
        for (int k = 0; k < Width; ++k) {
          moving.at[k] = momentum * moving.at[k] + g.at[k];
          g.at[k] = nesterov ? momentum * moving.at[k] + g.at[k] : moving.at[k];
        }
        store_pack(buffer + at, moving);
      }
      for (int k = 0; k < Width; ++k) values.at[k] -= lr * g.at[k];
      store_pack(value + at, values);
    });
  }
};

void check_state(const View& state) {
  WEFT_CHECK(state.bytes() == sizeof(StepState), "{} bytes of step state", state.bytes());
}
const StepState* state_of(const View& state) {
  check_state(state);
  return static_cast<const StepState*>(state.data);
}

void prepare(ExecContext& exec, View sum_of_squares, View loss, float max_norm, MutView state) {
  check_state(state);
  launch(exec, 1,
         Prepare{sum_of_squares.as<double>(), loss ? loss.as<double>() : nullptr, max_norm,
                 static_cast<StepState*>(state.data)});
}

/// Packs that all these views, as far as they are there, go in.
std::int64_t packs_of(const View& grad, std::initializer_list<View> others) {
  constexpr int width = pack_width<float>;
  bool aligned = can_pack<width>(floats(grad), 0, 0);
  for (const View& view : others) aligned = aligned && can_pack<width>(floats(view), 0, 0);
  return aligned ? grad.numel() / width : 0;
}

std::int64_t blocks_of(std::int64_t packs, std::int64_t count) {
  return blocks_for<Adam>(std::max(packs, count - packs * pack_width<float>));
}

template <class Spec>
void adam(ExecContext& exec, View state, Spec spec, View grad, MutView value, MutView m, MutView v) {
  const StepState* step = state_of(state);
  check_optim(grad, value, m, v);
  const std::int64_t count = grad.numel(), packs = packs_of(grad, {value, m, v});
  if (count == 0) return;
  WEFT_CHECK(value && m && v, "value, m or v is missing");
  auto* factors = static_cast<AdamFactors*>(exec.scratch(sizeof(AdamFactors)));
  launch(exec, 1, SetFactors<Spec>{step, spec, factors});
  const Adam kernel{.factors = factors,
                    .grad = floats(grad),
                    .value = floats(value),
                    .m = floats(m),
                    .v = floats(v),
                    .beta1 = spec.beta1,
                    .rest1 = static_cast<float>(1.0 - static_cast<double>(spec.beta1)),
                    .beta2 = spec.beta2,
                    .rest2 = static_cast<float>(1.0 - static_cast<double>(spec.beta2)),
                    .eps = spec.eps,
                    .packs = packs,
                    .count = count};
  launch(exec, blocks_of(packs, count), kernel);
}

void sgd(ExecContext& exec, View state, SgdSpec spec, View grad, MutView value, MutView momentum) {
  const StepState* step = state_of(state);
  check_optim(grad, value, momentum, {});
  const std::int64_t count = grad.numel();
  WEFT_CHECK(value || count == 0, "value is missing");
  WEFT_CHECK(spec.momentum == 0 || momentum || count == 0, "momentum {} without a buffer", spec.momentum);
  const MutView buffer = spec.momentum == 0 ? MutView{} : momentum;
  const std::int64_t packs = packs_of(grad, {value, buffer});
  const Sgd kernel{.state = step,
                   .grad = floats(grad),
                   .value = floats(value),
                   .buffer = floats(buffer),
                   .momentum = spec.momentum,
                   .weight_decay = spec.weight_decay,
                   .nesterov = spec.nesterov,
                   .packs = packs,
                   .count = count};
  launch(exec, blocks_of(packs, count), kernel);
}

}  // namespace

void bind_optim(KernelTable& table) {
  table.optim.prepare.bind(prepare);
  table.optim.adamw.bind(adam<AdamWSpec>);
  table.optim.sgd.bind(sgd);
  table.optim.radam.bind(adam<RAdamSpec>);
}

}  // namespace weft::cuda
