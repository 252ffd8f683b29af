// Attention forward and backward on one thread: FLOP/s on the visible (query, key) pairs, beside the rate of f32
// multiply-adds of the same instruction set, measured in the same run; and what relative positions add, as a ratio of times.
// Times are the thread's own processor time, the best of several, so that a busy machine does not spoil them.
#include <fmt/core.h>
#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft {
namespace {

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double best_seconds(const std::function<void()>& body) {
  double best = 1e9, total = 0;
  for (int i = 0; i < 5 || (total < 0.4 && i < 200); ++i) {
    const double begin = thread_seconds();
    body();
    const double taken = thread_seconds() - begin;
    best = std::min(best, taken);
    total += taken;
  }
  return best;
}

constexpr std::int64_t peak_rounds = 200000;

[[gnu::target("avx512f")]] float multiply_adds_512() {
  __m512 sums[12];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (std::int64_t i = 0; i < peak_rounds; ++i)
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
  for (int i = 1; i < 12; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

[[gnu::target("avx2,fma")]] float multiply_adds_256() {
  __m256 sums[12];
  for (auto& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  for (std::int64_t i = 0; i < peak_rounds; ++i)
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, a, b);
  for (int i = 1; i < 12; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

double peak_flops(cpu::Isa isa) {
  const bool wide = isa == cpu::Isa::v4;
  volatile float sink = 0;
  const double seconds = best_seconds([&] { sink = wide ? multiply_adds_512() : multiply_adds_256(); });
  return 2.0 * (wide ? 16 : 8) * 12 * static_cast<double>(peak_rounds) / seconds;
}

void measure(ExecContext& exec, cpu::Isa isa, DType dtype, std::int64_t length, std::int64_t heads,
             std::int64_t kv_heads, float p) {
  constexpr std::int64_t dim = 64;
  const std::int64_t row = (heads + 2 * kv_heads) * dim;
  const auto make = [&](Shape shape, DType type) {
    MutView view(nullptr, shape, type);
    view.data = exec.memory().allocate(view.bytes(), MemoryUse::activation);
    return view;
  };
  const MutView qkv = make({1, length, row}, dtype), dqkv = make({1, length, row}, dtype);
  const MutView out = make({1, length, heads, dim}, dtype), dout = make({1, length, heads, dim}, dtype);
  const MutView lse = make({1, heads, length}, DType::f32);
  for (const MutView& view : {qkv, dout})
    for (std::int64_t i = 0; i < view.numel(); ++i) {
      const auto value = static_cast<float>(normal({1, 2}, static_cast<std::uint64_t>(i)));
      if (dtype == DType::f32)
        view.as<float>()[i] = value;
      else
        view.as<bf16>()[i] = bf16(value);
    }
  const auto part = [&](const MutView& fused, std::int64_t first, std::int64_t count) {
    MutView view = fused;
    view.data = static_cast<char*>(view.data) + static_cast<std::size_t>(first * dim) * size_of(dtype);
    view.shape = {1, length, count, dim};
    view.strides = {length * row, row, dim, 1};
    return view;
  };
  const PhiloxKey key{1, 2};
  AttentionSpec spec;
  spec.scale = 0.125f;
  spec.heads_global = heads;
  spec.seq_global = length;
  spec.dropout.p = p;
  spec.dropout.key = &key;
  const auto& kernels = exec.kernels().attention;
  const MutView q = part(qkv, 0, heads), k = part(qkv, heads, kv_heads), v = part(qkv, heads + kv_heads, kv_heads);
  const MutView dq = part(dqkv, 0, heads), dk = part(dqkv, heads, kv_heads),
                dv = part(dqkv, heads + kv_heads, kv_heads);
  const double forward = best_seconds([&] { kernels.forward(exec, q, k, v, spec, out, lse); });
  const double backward = best_seconds([&] { kernels.backward(exec, q, k, v, out, lse, dout, spec, dq, dk, dv); });
  const double peak = peak_flops(isa);
  const double pairs = static_cast<double>(heads) * static_cast<double>(length) * static_cast<double>(length + 1) / 2;
  const double f = attention_cost(pairs, dim, 0).flops / forward,
               b = 2.5 * attention_cost(pairs, dim, 0).flops / backward;
  fmt::print(
      "{:>5} T={:<5} heads={}/{} p={:.1f}  forward {:6.1f} GFLOP/s ({:4.1f}%)  backward {:6.1f} GFLOP/s ({:4.1f}%)"
      "  of {:.1f}\n",
      name_of(dtype), length, heads, kv_heads, p, f * 1e-9, 100 * f / peak, b * 1e-9, 100 * b / peak, peak * 1e-9);
  for (const MutView& view : {qkv, dqkv, out, dout, lse})
    exec.memory().deallocate(view.data, view.bytes(), MemoryUse::activation);
}

// With relative positions beside without, in turns.
void measure_relative(ExecContext& exec, DType dtype, std::int64_t length, std::int64_t heads) {
  constexpr std::int64_t dim = 64;
  std::vector<MutView> all;
  const auto make = [&](Shape shape, DType type) {
    MutView view(nullptr, shape, type);
    view.data = exec.memory().allocate(view.bytes(), MemoryUse::activation);
    all.push_back(view);
    for (std::int64_t i = 0; i < view.numel(); ++i) {
      const auto value = static_cast<float>(normal({1, 2}, static_cast<std::uint64_t>(i)));
      if (type == DType::f32)
        view.as<float>()[i] = value;
      else
        view.as<bf16>()[i] = bf16(value);
    }
    return view;
  };
  const Shape tokens{1, length, heads, dim};
  const MutView q = make(tokens, dtype), k = make(tokens, dtype), v = make(tokens, dtype), out = make(tokens, dtype);
  const MutView dout = make(tokens, dtype), dq = make(tokens, dtype), dk = make(tokens, dtype),
                dv = make(tokens, dtype);
  const MutView r = make({length, heads, dim}, dtype), dr = make({length, heads, dim}, dtype);
  const MutView u = make({heads, dim}, DType::f32), du = make({heads, dim}, DType::f32);
  const MutView w = make({heads, dim}, DType::f32), dw = make({heads, dim}, DType::f32);
  const MutView lse = make({1, heads, length}, DType::f32);
  AttentionSpec spec;
  spec.scale = 0.125f;
  spec.heads_global = heads;
  spec.seq_global = length;
  const RelativePositions positions{r, 0, u, w};
  const auto& kernels = exec.kernels().attention;
  double plain[2] = {1e9, 1e9}, relative[2] = {1e9, 1e9};
  for (int round = 0; round < 3; ++round) {
    const auto least = [](double& best, const std::function<void()>& body) {
      best = std::min(best, best_seconds(body));
    };
    least(plain[0], [&] { kernels.forward(exec, q, k, v, spec, out, lse); });
    least(plain[1], [&] { kernels.backward(exec, q, k, v, out, lse, dout, spec, dq, dk, dv); });
    least(relative[0], [&] { kernels.relative_forward(exec, q, k, v, positions, spec, out, lse); });
    least(relative[1], [&] {
      kernels.relative_backward(exec, q, k, v, positions, out, lse, dout, spec, dq, dk, dv,
                                {dr, du, dw, Write::overwrite});
    });
  }
  fmt::print("{:>5} T={:<5} heads={} relative positions: forward x{:.2f}  backward x{:.2f}  both x{:.2f}\n",
             name_of(dtype), length, heads, relative[0] / plain[0], relative[1] / plain[1],
             (relative[0] + relative[1]) / (plain[0] + plain[1]));
  for (const MutView& view : all) exec.memory().deallocate(view.data, view.bytes(), MemoryUse::activation);
}

}  // namespace
}  // namespace weft

int main() {
  using namespace weft;
  const auto memory = make_caching_allocator(make_host_memory());
  for (const cpu::Isa isa : {cpu::Isa::v3, cpu::Isa::v4}) {
    if (isa > cpu::best_isa()) break;
    fmt::print("{}\n", cpu::name_of(isa));
    KernelTable kernels;
    cpu::bind(kernels, kernel_abi_hash(), isa);
    ExecContext exec(kernels, *memory, 1);
    exec.backend = cpu::make_state();
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const std::int64_t length : {256, 512, 1024}) measure(exec, isa, dtype, length, 6, 6, 0);
    measure(exec, isa, DType::bf16, 1024, 6, 2, 0);
    measure(exec, isa, DType::bf16, 256, 6, 6, 0.1f);
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const std::int64_t length : {128, 512, 2048}) measure_relative(exec, dtype, length, 4);
  }
}
