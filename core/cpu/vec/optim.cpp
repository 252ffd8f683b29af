// Optimizer steps, each one pass over gradient, state and value; see core/kernels/optim.hpp.
#include "core/cpu/vec/functions.hpp"
#include "core/cpu/vec/simd.hpp"

namespace weft::cpu::WEFT_ISA {

void adam(const AdamArgs& a, std::int64_t begin, std::int64_t end) {
  const Vec scale = splat(a.grad_scale), beta1 = splat(a.beta1), rest1 = splat(a.rest1);
  const Vec beta2 = splat(a.beta2), rest2 = splat(a.rest2), eps = splat(a.eps), decay = splat(a.decay);
  const Vec step = splat(-a.step_size), v_scale = splat(a.v_scale);
  for_vectors(begin, end, [&](std::int64_t i, auto n) {
    const Vec g = load_n(a.grad + i, n) * scale;
    const Vec m = fma(beta1, load_n(a.m + i, n), rest1 * g);
    const Vec v = fma(beta2, load_n(a.v + i, n), rest2 * g * g);
    store_n(a.m + i, n, m);
    store_n(a.v + i, n, v);
    // A short run's unused lanes hold 0/eps.
    const Vec update = m / fma(sqrt(v), v_scale, eps);
    store_n(a.value + i, n, fma(step, update, load_n(a.value + i, n) * decay));
  });
}

void sgd(const SgdArgs& a, std::int64_t begin, std::int64_t end) {
  const Vec scale = splat(a.grad_scale), decay = splat(a.weight_decay), momentum = splat(a.momentum), lr = splat(-a.lr);
  for_vectors(begin, end, [&](std::int64_t i, auto n) {
    const Vec value = load_n(a.value + i, n);
    Vec g = fma(decay, value, load_n(a.grad + i, n) * scale);
    if (a.momentum_buffer) {
      const Vec buffer = fma(momentum, load_n(a.momentum_buffer + i, n), g);
      store_n(a.momentum_buffer + i, n, buffer);
      g = a.nesterov ? fma(momentum, buffer, g) : buffer;
    }
    store_n(a.value + i, n, fma(lr, g, value));
  });
}

}  // namespace weft::cpu::WEFT_ISA
