// Training steps of one recurrent layer, for recurrent.py, which runs them in turn with PyTorch's.
// Usage: weft_bench_recurrent elman|lstm|gru f32|bf16 BATCH STEPS HIDDEN THREADS
//
// With one thread its processor time is taken, which other programs on the machine disturb little.
//
// Each line on standard input is answered by one line of JSON:
//   step   {"step_ms"}: forward, and backward to the weights and to x [B,T,H], with weights that changed since
//   parts  {"forward_ms", "backward_ms", "forward_limit_ms", "backward_limit_ms"}: the sequence kernels alone, beside what
//          they would take at the rate of one large product, or at the rate at which all threads read the recurrent
//          weight over and over, whichever takes longer
#include <fmt/core.h>
#include <immintrin.h>
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "core/base/clock.hpp"
#include "core/cpu/backend.hpp"
#include "core/nn/parameter_store.hpp"
#include "core/ops/linear.hpp"
#include "core/ops/recurrent.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft {
namespace {

struct Layer {
  RecurrentCell cell;
  DType dtype;
  std::int64_t batch, steps, hidden;
  int threads;
  std::int64_t width() const { return gates_of(cell) * hidden; }
  double step_flops() const { return 2.0 * static_cast<double>(batch * width() * hidden); }
  double weight_bytes() const { return static_cast<double>(width() * hidden) * static_cast<double>(size_of(dtype)); }
};

double now(int threads) {
  if (threads > 1) return seconds_now();
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// The sum keeps the reads from being left out.
[[gnu::target("avx2"), gnu::noinline]] long long read_all(const char* data, std::size_t bytes) {
  __m256i sums[4] = {};
  for (std::size_t i = 0; i + 128 <= bytes; i += 128)
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j)
      sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
  const __m256i total = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  return _mm256_extract_epi64(total, 0);
}

class Bench {
 public:
  explicit Bench(const Layer& layer) : layer_(layer) {
    cpu::bind(kernels_, kernel_abi_hash(), cpu::best_isa());
    exec_.backend = cpu::make_state();
    const std::int64_t h = layer.hidden;
    const Init init = Init::uniform(0.04);
    input_ = &store_.add("input.weight", Slice::whole({layer.width(), h}), init);
    input_bias_ = &store_.add("input.bias", Slice::whole({layer.width()}), init);
    weight_ = &store_.add("hidden.weight", Slice::whole({layer.width(), h}), init);
    if (layer.cell == RecurrentCell::gru) hidden_bias_ = &store_.add("hidden.bias", Slice::whole({h}), init);
    store_.allocate_values(exec_);
    store_.allocate_grads(exec_);
    store_.initialize(exec_, 1);
    x_ = random({layer.batch, layer.steps, h});
    dy_ = random({layer.batch, layer.steps, h});
  }

  double step() {
    const double begin = now(layer_.threads);
    for (Parameter* parameter : store_.all()) parameter->changed();
    store_.begin_step();
    Tape tape;
    tape.begin(MicroBatch::last);
    OpContext cx{exec_, &tape, layer_.dtype, {}, nullptr};
    Tensor x = x_;
    tape.watch(x);
    const ops::RecurrentOutput out =
        ops::recurrent(cx, layer_.cell, ops::linear(cx, x, *input_, input_bias_), *weight_, hidden_bias_);
    tape.backward(exec_, out.y, dy_);
    return 1e3 * (now(layer_.threads) - begin);
  }

  struct Parts {
    double forward, backward, forward_limit, backward_limit;
  };
  Parts parts() {
    const std::int64_t b = layer_.batch, t = layer_.steps, h = layer_.hidden;
    const bool lstm = layer_.cell == RecurrentCell::lstm, gru = layer_.cell == RecurrentCell::gru;
    const Tensor gates = random({b, t, layer_.width()}), y = empty({b, t, h}, layer_.dtype);
    const Tensor cells = lstm ? empty({b, t, h}, DType::f32) : Tensor{};
    const Tensor candidate = gru ? empty({b, t, h}, layer_.dtype) : Tensor{};
    const Tensor dhidden = gru ? empty({b, t, 3 * h}, layer_.dtype) : Tensor{};
    const Tensor h_last = empty({b, h}, DType::f32), c_last = lstm ? empty({b, h}, DType::f32) : Tensor{};
    RecurrentForward forward{layer_.cell, gates.view(),    weight_->weight(), {},      {},           {},
                             gates.mut(), candidate.mut(), cells.mut(),       y.mut(), h_last.mut(), c_last.mut()};
    RecurrentBackward backward{
        layer_.cell, gates.view(), candidate.view(), cells.view(), y.view(), weight_->weight(), {}, {}, dy_.view(), {},
        {},          gates.mut(),  dhidden.mut(),    {},           {}};
    Parts result{};
    kernels_.recurrent.forward(exec_, forward);
    kernels_.recurrent.backward(exec_, backward);
    double begin = now(layer_.threads);
    kernels_.recurrent.forward(exec_, forward);
    result.forward = 1e3 * (now(layer_.threads) - begin);
    begin = now(layer_.threads);
    kernels_.recurrent.backward(exec_, backward);
    result.backward = 1e3 * (now(layer_.threads) - begin);
    const double stream = 1e3 * static_cast<double>(t) * layer_.weight_bytes() / stream_rate();
    const auto limit = [&](double rate) {
      return std::max(1e3 * static_cast<double>(t) * layer_.step_flops() / rate, stream);
    };
    result.forward_limit = limit(product_rate(false));
    result.backward_limit = limit(product_rate(true));
    return result;
  }

 private:
  Tensor empty(Shape shape, DType dtype) { return Tensor::empty(*memory_, shape, dtype, MemoryUse::activation); }
  Tensor random(Shape shape) {
    const Tensor wide = empty(shape, DType::f32), tensor = empty(shape, layer_.dtype);
    for (std::int64_t i = 0; i < wide.numel(); ++i)
      wide.mut().as<float>()[i] = uniform(philox_word({1, 2}, static_cast<std::uint64_t>(i))) - 0.5f;
    kernels_.elementwise.copy(exec_, wide.view(), tensor.mut());
    return tensor;
  }

  /// FLOP/s of the product over all steps, forward or to x.
  double product_rate(bool backward) {
    const std::int64_t rows = layer_.batch * layer_.steps, h = layer_.hidden;
    const Tensor wide = random({rows, layer_.width()}), narrow = random({rows, h});
    const auto run = [&] {
      if (backward)
        kernels_.linear.backward_data(exec_, wide.view(), input_->weight(), Write::overwrite, narrow.mut());
      else
        kernels_.linear.forward(exec_, narrow.view(), input_->weight(), {}, Epilogue::none, {}, {}, wide.mut());
    };
    run();
    const double begin = now(layer_.threads);
    run();
    return static_cast<double>(layer_.steps) * layer_.step_flops() / (now(layer_.threads) - begin);
  }

  /// Bytes a second of all threads, each reading its share of a weight's bytes.
  double stream_rate() {
    const auto bytes = static_cast<std::size_t>(layer_.weight_bytes());
    const Tensor weight = empty({static_cast<std::int64_t>(bytes)}, DType::u8);
    std::memset(weight.mut().data, 1, bytes);
    const auto* data = static_cast<const char*>(weight.view().data);
    constexpr int rounds = 50;
    long long sum = 0;
    double begin = 0;
#pragma omp parallel num_threads(layer_.threads) reduction(+ : sum)
    {
      const std::size_t share = bytes / static_cast<std::size_t>(omp_get_num_threads()) / 128 * 128;
      const char* mine = data + share * static_cast<std::size_t>(omp_get_thread_num());
      sum += read_all(mine, share);
#pragma omp barrier
#pragma omp master
      begin = now(layer_.threads);
      for (int i = 0; i < rounds; ++i) sum += read_all(mine, share);
    }
    const double seconds = now(layer_.threads) - begin;
    if (sum == 42) std::fputs("\n", stderr);
    return rounds * static_cast<double>(bytes) / seconds;
  }

  Layer layer_;
  std::unique_ptr<Allocator> memory_ = make_caching_allocator(make_host_memory());
  KernelTable kernels_;
  ExecContext exec_{kernels_, *memory_, layer_.threads};
  ParameterStore store_;
  Parameter *input_, *input_bias_, *weight_, *hidden_bias_ = nullptr;
  Tensor x_, dy_;
};

int serve(const Layer& layer) {
  Bench bench(layer);
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "step") {
      fmt::print("{{\"step_ms\": {}}}\n", bench.step());
    } else if (line == "parts") {
      const Bench::Parts p = bench.parts();
      fmt::print("{{\"forward_ms\": {}, \"backward_ms\": {}, \"forward_limit_ms\": {}, \"backward_limit_ms\": {}}}\n",
                 p.forward, p.backward, p.forward_limit, p.backward_limit);
    } else {
      fmt::print(stderr, "found `{}`, expected step or parts\n", line);
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  using namespace weft;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string cell = arguments.empty() ? "" : arguments[0];
  if (arguments.size() != 6 || (cell != "elman" && cell != "lstm" && cell != "gru")) {
    fmt::print(stderr, "usage: weft_bench_recurrent elman|lstm|gru f32|bf16 BATCH STEPS HIDDEN THREADS\n");
    return 2;
  }
  return serve({cell == "elman"  ? RecurrentCell::elman
                : cell == "lstm" ? RecurrentCell::lstm
                                 : RecurrentCell::gru,
                arguments[1] == "bf16" ? DType::bf16 : DType::f32, std::stoll(arguments[2]), std::stoll(arguments[3]),
                std::stoll(arguments[4]), std::stoi(arguments[5])});
}
