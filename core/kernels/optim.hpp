// Optimizer steps over flat f32 storage. All that changes from step to step is in device memory, so that a step can be
// captured once and replayed, and a non-finite step is skipped without asking the host.
#pragma once
#include <cstdint>

#include "core/kernels/slot.hpp"

namespace weft {

/// Lives in device memory. The host writes lr before a step; `prepare` fills the rest.
struct StepState {
  float lr = 0;
  float grad_norm = 0;       ///< global norm before clipping
  float clip_scale = 1;      ///< what gradients are multiplied by
  std::int32_t skip = 0;     ///< 1: the norm or the loss is not finite, parameters and optimizer state stay as they are
  std::int64_t applied = 0;  ///< steps not skipped so far, with this one; the optimizer's t
};

struct AdamWSpec {
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0.1f;
};
struct SgdSpec {
  float momentum = 0.9f, weight_decay = 0;
  bool nesterov = false;
};
/// Liu et al. 2020, with decoupled weight decay and no update while the variance is not tractable (N_sma < 5).
struct RAdamSpec {
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.1f;
};

struct OptimKernels {
  /// state (u8 view of one StepState): grad_norm = √(*sum_of_squares), clip_scale = min(1, max_norm / grad_norm) if
  /// max_norm > 0, skip if the norm or the loss (f64[1], may be empty) is not finite, applied += 1 unless skipped.
  Slot<void(View sum_of_squares, View loss, float max_norm, MutView state)> prepare{"optim.prepare"};
  /// Loshchilov & Hutter 2019. value, m, v, grad are flat f32 of equal size; wd is 0 for tensors without decay, as in spec.
  Slot<void(View state, AdamWSpec spec, View grad, MutView value, MutView m, MutView v)> adamw{"optim.adamw"};
  Slot<void(View state, SgdSpec spec, View grad, MutView value, MutView momentum)> sgd{"optim.sgd"};
  Slot<void(View state, RAdamSpec spec, View grad, MutView value, MutView m, MutView v)> radam{"optim.radam"};
};

}  // namespace weft
