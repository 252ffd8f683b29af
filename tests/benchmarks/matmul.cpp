// Rates of the three matrix products of a linear layer and of the loss, beside oneDNN's inner product on the same shapes
// and beside the peak rate of the processor. With one thread its processor time is taken, which other programs on the
// machine disturb little. Usage: weft_bench_matmul [threads] [repeats] [f32|bf16|all] [ROWSxOUTxIN[xCOUNT] ...]
//
// With shapes it prints one line of JSON: the rate of each, COUNT layers of each taken together, as the harmonic mean of
// the three products' median rates: the rate of a training step that had nothing but these products to do.
#include <immintrin.h>
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/clock.hpp"
#include "core/base/philox.hpp"
#include "core/cpu/linear.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "oneapi/dnnl/dnnl.hpp"

namespace {

using namespace weft;

struct Times {
  double best, median;
};

double clock_now() {
  if (omp_get_max_threads() > 1) return seconds_now();
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

Times time(int repeats, const std::function<void()>& body) {
  body();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const double begin = clock_now();
    body();
    seconds.push_back(clock_now() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

[[gnu::target("avx512f"), gnu::noinline]] float fma_chains(long rounds) {
  __m512 sums[24];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_set1_ps(1.0001f), b = _mm512_set1_ps(0.999f);
  for (long i = 0; i < rounds; ++i)
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) sums[j] = _mm512_fmadd_ps(a, b, sums[j]);
  for (int j = 1; j < 24; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

[[gnu::target("avx512f,avx512bf16"), gnu::noinline]] float bf16_dot_chains(long rounds) {
  __m512 sums[24];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_ps(1.0001f));
  const auto b = reinterpret_cast<__m512bh>(_mm512_set1_ps(0.999f));
  for (long i = 0; i < rounds; ++i)
#pragma GCC unroll 24
    for (int j = 0; j < 24; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], a, b);
  for (int j = 1; j < 24; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

class Buffer {
 public:
  Buffer(Allocator& memory, std::int64_t rows, std::int64_t cols, DType dtype, std::uint64_t seed)
      : memory_(memory), view_(nullptr, Shape{rows, cols}, dtype) {
    view_.data = memory.allocate(view_.bytes(), MemoryUse::workspace);
    const PhiloxKey key = philox_key(seed);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const float value = uniform(philox_word(key, static_cast<std::uint64_t>(i))) - 0.5f;
      if (dtype == DType::bf16)
        view_.as<bf16>()[i] = bf16(value);
      else
        view_.as<float>()[i] = value;
    }
  }
  ~Buffer() { memory_.deallocate(view_.data, view_.bytes(), MemoryUse::workspace); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  const MutView& view() const { return view_; }

 private:
  Allocator& memory_;
  MutView view_;
};

struct LibraryRates {
  double forward = 0, data = 0, weight = 0;
};

/// oneDNN's inner product with weights in the layout that it prefers.
LibraryRates library_rates(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype, int repeats) {
  using namespace dnnl;
  using Tag = memory::format_tag;
  const engine cpu(engine::kind::cpu, 0);
  stream queue(cpu);
  const auto type = dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const auto any = memory::desc({n, k}, type, Tag::any);
  const memory::desc x({m, k}, type, Tag::ab), y({m, n}, type, Tag::ab), dw({n, k}, memory::data_type::f32, Tag::ab);
  const inner_product_forward::primitive_desc forward({prop_kind::forward_training, x, any, y}, cpu);
  const inner_product_backward_data::primitive_desc data({x, any, y}, cpu, forward);
  const inner_product_backward_weights::primitive_desc weight({x, dw, y}, cpu, forward);
  const double flops = 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const auto rate = [&](const primitive& op, std::unordered_map<int, memory> args) {
    return flops / time(repeats, [&] {
                     op.execute(queue, args);
                     queue.wait();
                   }).best;
  };
  memory in(x, cpu), out(y, cpu), gradient(dw, cpu), w(forward.weights_desc(), cpu), wt(data.weights_desc(), cpu);
  for (const memory& one : {in, out, w, wt, gradient}) std::memset(one.get_data_handle(), 0, one.get_desc().get_size());
  return {rate(inner_product_forward(forward), {{DNNL_ARG_SRC, in}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, out}}),
          rate(inner_product_backward_data(data),
               {{DNNL_ARG_DIFF_DST, out}, {DNNL_ARG_WEIGHTS, wt}, {DNNL_ARG_DIFF_SRC, in}}),
          rate(inner_product_backward_weights(weight),
               {{DNNL_ARG_DIFF_DST, out}, {DNNL_ARG_SRC, in}, {DNNL_ARG_DIFF_WEIGHTS, gradient}})};
}

struct ProductTimes {
  Times forward, data, weight;
};

ProductTimes product_times(ExecContext& exec, std::int64_t m, std::int64_t n, std::int64_t k, DType dtype,
                           int repeats) {
  Allocator& mem = exec.memory();
  const Buffer x(mem, m, k, dtype, 1), w(mem, n, k, DType::f32, 2), y(mem, m, n, dtype, 3),
      dw(mem, n, k, DType::f32, 4), db(mem, 1, n, DType::f32, 5);
  std::unique_ptr<PackedWeight> pack;
  const WeightRef weight{w.view(), &pack, 1};
  const MutView bias = db.view().reshaped(Shape{n});
  const auto& linear = exec.kernels().linear;
  return {time(repeats, [&] { linear.forward(exec, x.view(), weight, bias, Epilogue::none, {}, {}, y.view()); }),
          time(repeats, [&] { linear.backward_data(exec, y.view(), weight, Write::overwrite, x.view()); }),
          time(repeats, [&] { linear.backward_weight(exec, y.view(), x.view(), Write::add, dw.view(), bias); })};
}

void product_rates(ExecContext& exec, std::int64_t m, std::int64_t n, std::int64_t k, DType dtype, int repeats) {
  const double flops = 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const auto [forward, data, weight] = product_times(exec, m, n, k, dtype, repeats);
  const Times times[] = {forward, data, weight};
  const LibraryRates library = library_rates(m, n, k, dtype, repeats);
  std::printf("%6ld %6ld %6ld %5s  ", m, n, k, name_of(dtype).data());
  const double beside[] = {library.forward, library.data, library.weight};
  for (int i = 0; i < 3; ++i)
    std::printf("  %6.1f %6.1f %6.1f ", flops / times[i].best, flops / times[i].median, beside[i]);
  std::printf("\n");
  std::fflush(stdout);
}

/// The rate of all `shapes` together, in GFLOP/s; 0 for a shape that cannot be read.
double harmonic_rate(ExecContext& exec, const std::vector<std::string>& shapes, DType dtype, int repeats) {
  double flops = 0, seconds = 0;
  for (const std::string& shape : shapes) {
    long m = 0, n = 0, k = 0, count = 1;
    if (std::sscanf(shape.c_str(), "%ldx%ldx%ldx%ld", &m, &n, &k, &count) < 3) return 0;
    const auto [forward, data, weight] = product_times(exec, m, n, k, dtype, repeats);
    flops += 6e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) *
             static_cast<double>(count);
    seconds += static_cast<double>(count) * (forward.median + data.median + weight.median);
  }
  return flops / seconds;
}

void loss_rates(ExecContext& exec, std::int64_t m, std::int64_t vocabulary, std::int64_t d, DType dtype, int repeats) {
  Allocator& mem = exec.memory();
  const Buffer h(mem, m, d, dtype, 1), w(mem, vocabulary, d, DType::f32, 2), dh(mem, m, d, dtype, 3),
      dw(mem, vocabulary, d, DType::f32, 4);
  std::vector<std::int32_t> targets(static_cast<std::size_t>(m), 7);
  std::vector<float> weights(static_cast<std::size_t>(m), 1), loss(static_cast<std::size_t>(m));
  const WeightRef weight{w.view(), nullptr, 1};
  const double flops = 6e-9 * static_cast<double>(m) * static_cast<double>(vocabulary) * static_cast<double>(d);
  const Times t = time(repeats, [&] {
    exec.kernels().linear.cross_entropy(exec, h.view(), weight, View(targets.data(), Shape{m}, DType::i32),
                                        View(weights.data(), Shape{m}, DType::f32), 1.0f / static_cast<float>(m),
                                        Write::add, MutView(loss.data(), Shape{m}, DType::f32), dh.view(), dw.view());
  });
  std::printf("loss %6ld rows, vocabulary %6ld, width %5ld %5s   %6.1f %6.1f\n", m, vocabulary, d,
              name_of(dtype).data(), flops / t.best, flops / t.median);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 9;
  const std::string which = argc > 3 ? argv[3] : "all";
  omp_set_num_threads(threads);
  auto memory = make_caching_allocator(make_host_memory());
  KernelTable table;
  cpu::bind_linear(table, cpu::best_isa());
  ExecContext exec(table, *memory, threads);
  exec.backend = cpu::make_state();

  if (argc > 4) {
    const std::vector<std::string> shapes(argv + 4, argv + argc);
    const double rate = harmonic_rate(exec, shapes, which == "bf16" ? DType::bf16 : DType::f32, repeats);
    if (rate <= 0) std::fprintf(stderr, "weft_bench_matmul: a shape is ROWSxOUTxIN or ROWSxOUTxINxCOUNT\n");
    std::printf("{\"gflops\": %.1f}\n", rate);
    return rate > 0 ? 0 : 2;
  }

  if (__builtin_cpu_supports("avx512f")) {
    volatile float sink = 0;
    const long rounds = 1000000;
    double best = time(5, [&] { sink = fma_chains(rounds); }).best;
    std::printf("one core: f32 FMA %.1f GFLOP/s", 24.0 * 32 * rounds / best / 1e9);
    if (__builtin_cpu_supports("avx512bf16")) {
      best = time(5, [&] { sink = bf16_dot_chains(rounds); }).best;
      std::printf(", bf16 dot %.1f GFLOP/s", 24.0 * 64 * rounds / best / 1e9);
    }
    std::printf("\n");
  }
  std::printf("GFLOP/s, %d threads: best and median of ours, best of oneDNN's inner product\n", threads);
  std::printf("%6s %6s %6s %5s  %22s %22s %22s\n", "M", "N", "K", "", "forward", "data gradient", "weight gradient");
  const std::int64_t shapes[][3] = {{4096, 1152, 384}, {4096, 384, 384}, {4096, 1536, 384}, {4096, 384, 1536},
                                    {256, 1536, 384},  {256, 384, 1536}, {2048, 2304, 768}, {2048, 768, 768},
                                    {2048, 3072, 768}, {2048, 768, 3072}};
  for (DType dtype : {DType::f32, DType::bf16}) {
    if (which != "all" && which != name_of(dtype)) continue;
    for (const auto& shape : shapes) product_rates(exec, shape[0], shape[1], shape[2], dtype, repeats);
    loss_rates(exec, 4096, 256, 384, dtype, repeats);
    loss_rates(exec, 2048, 50304, 768, dtype, std::min(repeats, 3));
  }
  return 0;
}
