// A training step (forward, backward) of a stack of SRU layers, without embedding and loss: what compare_sru.py times beside
// the public package. Prints the median milliseconds of each time it reads a line, so that both sides take turns.
// Usage: weft_bench_sru_step WIDTH BATCH LENGTH LAYERS f32|bf16 THREADS
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.hpp"
#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "models/mixers/sru.hpp"
#include "parallel/comm/comm_log.hpp"
#include "parallel/mesh.hpp"

int main(int count, char** arguments) {
  using namespace weft;
  if (count != 7) {
    fmt::print(stderr, "usage: weft_bench_sru_step WIDTH BATCH LENGTH LAYERS f32|bf16 THREADS\n");
    return 2;
  }
  const auto number = [&](int i) { return std::int64_t{std::atoll(arguments[i])}; };
  const Shape shape{number(2), number(3), number(1)};
  const DType dtype = std::string(arguments[5]) == "f32" ? DType::f32 : DType::bf16;
  const auto memory = make_caching_allocator(make_host_memory());
  KernelTable kernels;
  cpu::bind(kernels, kernel_abi_hash(), cpu::best_isa());
  ExecContext exec(kernels, *memory, static_cast<int>(number(6)));
  exec.backend = cpu::make_state();
  CommLog log;
  const auto world = make_self_communicator(log);
  Mesh mesh(*world, log, {});
  ParameterStore store;
  MixerOptions options;
  options.d_model = shape[2];
  std::vector<std::unique_ptr<Mixer>> layers;
  for (std::int64_t i = 0; i < number(4); ++i)
    layers.push_back(make_sru(BuildContext{Builder(store), mesh}.child("layer", i), options));
  store.allocate_values(exec);
  store.allocate_grads(exec);
  store.initialize(exec, 1);

  Tensor x = Tensor::empty(*memory, shape, dtype, MemoryUse::activation);
  const Tensor dy = Tensor::empty(*memory, shape, dtype, MemoryUse::activation);
  kernels.elementwise.fill(exec, 0.5f, x.mut());
  kernels.elementwise.fill(exec, 0.1f, dy.mut());
  Tape tape;
  OpContext cx{exec, &tape, dtype, {}, nullptr};
  cx.tokens = {0, shape[1], shape[1], {0, 0}, shape[1]};
  const auto step = [&] {
    for (Parameter* parameter : store.all())
      parameter->changed();  // weights are packed anew, as after an optimizer's step
    store.begin_step();
    tape.begin(MicroBatch::last);
    tape.watch(x);
    Tensor h = x;
    for (const auto& layer : layers) h = layer->forward(cx, {h}, nullptr);
    tape.backward(exec, h, dy);
  };
  step();
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<double> seconds;
    for (int i = 0; i < 3; ++i) {
      const double begin = seconds_now();
      step();
      seconds.push_back(seconds_now() - begin);
    }
    std::ranges::sort(seconds);
    fmt::print("{:.3f}\n", 1e3 * seconds[1]);
    std::fflush(stdout);
  }
}
