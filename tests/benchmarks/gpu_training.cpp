// Training steps of a GPT-2 style model over random tokens, on the device that `--device cuda` takes, by one rank without
// MPI's start. Prints one JSON line for compare_gpu.py.
// Usage: weft_bench_gpu_training LAYERS D_MODEL HEADS SEQ VOCAB BATCH MICRO_BATCH f32|bf16 WARMUP STEPS [tuned] [kernels]
// `tuned`: products by the algorithms that a step measured before. `kernels`: also sums the time of kernels by CUPTI, which
// slows steps down.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/clock.hpp"
#include "core/base/philox.hpp"
#include "core/data/random_tokens.hpp"
#include "launcher/devices.hpp"
#include "launcher/training_step.hpp"
#include "parallel/comm/comm_log.hpp"
#include "tests/benchmarks/kernel_times.hpp"

namespace weft {
namespace {

struct Arguments {
  std::int64_t layers, d_model, heads, seq, vocab, batch, micro_batch;
  DType dtype;
  int warmup, steps;
  bool tuned = false, kernels = false;
};

// FLOP/s of large products of normal values, queued one behind the other: what other programs call the card's rate.
double matrix_rate(Device& device, DType dtype) {
  constexpr int queued = 16;
  const std::int64_t size = device.facts().product_size >= 4096 ? 8192 : device.facts().product_size;
  ExecContext& exec = device.exec();
  const auto normals = [&](const char* name, DType type) {
    constexpr std::size_t period = (std::size_t{1} << 20) + 7;
    std::vector<float> values(static_cast<std::size_t>(size * size));
    const PhiloxKey key = philox_key(1, name);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = i < period ? static_cast<float>(normal(key, i)) : values[i - period];
    Tensor wide = Tensor::empty(device.memory(), {size, size}, DType::f32, MemoryUse::workspace);
    exec.kernels().transfer.upload(exec, View(values.data(), {size, size}, DType::f32), wide.mut());
    if (type == DType::f32) return wide;
    Tensor narrow = Tensor::empty(device.memory(), {size, size}, type, MemoryUse::workspace);
    exec.kernels().elementwise.copy(exec, wide.view(), narrow.mut());
    return narrow;
  };
  const Tensor x = normals("x", dtype), w = normals("w", DType::f32);
  const Tensor y = Tensor::empty(device.memory(), {size, size}, dtype, MemoryUse::workspace);
  std::unique_ptr<PackedWeight> pack;
  double best = 0;
  for (int round = 0; round < 6; ++round) {
    const double begin = seconds_now();
    for (int i = 0; i < queued; ++i)
      exec.kernels().linear.forward(exec, x.view(), {w.view(), &pack, 0}, {}, Epilogue::none, {}, {}, y.mut());
    synchronize(device);
    best = std::max(best, queued * 2.0 * static_cast<double>(size * size * size) / (seconds_now() - begin));
  }
  return best;
}

enum class Products : std::uint8_t { taken, measured };

std::unique_ptr<Device> open_gpu(Products products = Products::taken, ProductTable table = {}) {
  RunOptions options;
  options.device = DeviceChoice::cuda;
  if (products == Products::measured) options.tune = "no file";
  return open_device(options, rank_environment(), cpu::best_isa(), std::move(table));
}

/// All that trains, on one device.
class Training {
 public:
  Training(std::unique_ptr<Device> device, const Arguments& a, StepReplay replay)
      : engine_(std::move(device)), self_(make_self_communicator(log_, "self", 0, &engine_.device())),
        mesh_(*self_, log_, {}), built_(build_model(config_of(a), mesh_)) {
    ExecContext& exec = engine_.exec();
    built_->store.allocate_values(exec);
    built_->store.allocate_grads(exec);
    built_->store.initialize(exec, 1);
    optimizer_.emplace(AdamWSpec{}, built_->store, exec);
    SamplerOptions order;
    order.seq = a.seq;
    sampler_.emplace(std::vector<std::shared_ptr<const TokenSource>>{std::make_shared<RandomTokens>(
                         64 * a.batch * (a.seq + 1), a.vocab)},
                     order);
    StepOptions options;
    options.batch = a.batch;
    options.micro_batch = a.micro_batch;
    options.seq = a.seq;
    options.clip = 1;
    options.compute = a.dtype;
    options.replay = replay;
    step_.emplace(Worker{engine_, mesh_, log_}, *built_, *optimizer_, *sampler_, options);
  }

  Device& device() { return engine_.device(); }
  TrainingStep& step() { return *step_; }
  std::int64_t parameters() const { return built_->store.global_numel(); }

 private:
  static LmConfig config_of(const Arguments& a) {
    LmConfig config;
    config.vocab = a.vocab;
    config.layers = a.layers;
    config.d_model = a.d_model;
    config.heads = config.kv_heads = a.heads;
    config.d_ff = 4 * a.d_model;
    config.max_seq = a.seq;
    return config;
  }

  Engine engine_;
  CommLog log_;
  std::unique_ptr<Communicator> self_;
  Mesh mesh_;
  std::unique_ptr<BuiltModel> built_;
  std::optional<Optimizer> optimizer_;
  std::optional<Sampler> sampler_;
  std::optional<TrainingStep> step_;
};

ProductTable measure_products(const Arguments& a) {
  Training training(open_gpu(Products::measured), a, StepReplay::off);
  training.step().run(1, 0, 0);
  return training.device().measured_products();
}

nlohmann::json run(const Arguments& a) {
  if (a.kernels) count_kernel_times();
  double f32_rate = 0, bf16_rate = 0;
  {
    const std::unique_ptr<Device> device = open_gpu();  // its memory is none of the training's
    f32_rate = matrix_rate(*device, DType::f32);
    bf16_rate = matrix_rate(*device, DType::bf16);
  }
  Training training(open_gpu(Products::taken, a.tuned ? measure_products(a) : ProductTable()), a,
                    StepReplay::automatic);
  Device& device = training.device();
  TrainingStep& step = training.step();

  // One step ahead, as training does.
  constexpr double learning_rate = 3e-4;
  std::vector<double> step_ms;
  double loss = 0, kernel_seconds = 0, begin = 0, flops = 0;
  const int total = a.warmup + a.steps;
  step.start(1, 0, learning_rate);
  for (int i = 1; i <= total; ++i) {
    const bool last_of_warmup = i == a.warmup, last = i == total;
    if (!last && !last_of_warmup) step.start(i + 1, i * a.batch, learning_rate);
    const StepResult result = step.finish();
    loss = result.loss;
    flops = result.flops;
    const double now = seconds_now();
    if (i > a.warmup) step_ms.push_back(1e3 * (now - begin));
    begin = now;
    if (last_of_warmup) {
      synchronize(device);
      if (a.kernels) take_kernel_seconds();
      begin = seconds_now();
      if (!last) step.start(i + 1, i * a.batch, learning_rate);
    }
  }
  synchronize(device);
  if (a.kernels) kernel_seconds = take_kernel_seconds();

  double all_ms = 0;
  for (const double ms : step_ms) all_ms += ms;
  nlohmann::json result = {{"device", device.facts().name},
                           {"libraries", device.facts().libraries},
                           {"dtype", std::string(name_of(a.dtype))},
                           {"batch", a.batch},
                           {"micro_batch", a.micro_batch},
                           {"products", device.facts().products},
                           {"parameters", training.parameters()},
                           {"loss", loss},
                           {"step_ms", step_ms},
                           {"tokens_per_s", 1e3 * static_cast<double>(a.batch * a.seq * a.steps) / all_ms},
                           {"flops_per_step", flops},
                           {"peak_bytes", device.memory().stats().total_peak},
                           {"f32_matrix_tflops", f32_rate * 1e-12},
                           {"bf16_matrix_tflops", bf16_rate * 1e-12}};
  if (a.kernels) result["kernel_ms_per_step"] = 1e3 * kernel_seconds / a.steps;
  return result;
}

}  // namespace
}  // namespace weft

int main(int count, char** arguments) {
  if (count < 11) {
    fmt::print(stderr,
               "usage: weft_bench_gpu_training LAYERS D_MODEL HEADS SEQ VOCAB BATCH MICRO_BATCH f32|bf16 WARMUP STEPS "
               "[tuned] [kernels]\n");
    return 2;
  }
  const auto number = [&](int i) { return std::int64_t{std::atoll(arguments[i])}; };
  const auto asks = [words = std::span(arguments + 11, arguments + count)](std::string_view word) {
    return std::ranges::find(words, word) != words.end();
  };
  const weft::Arguments a = {.layers = number(1),
                             .d_model = number(2),
                             .heads = number(3),
                             .seq = number(4),
                             .vocab = number(5),
                             .batch = number(6),
                             .micro_batch = number(7),
                             .dtype = std::string(arguments[8]) == "f32" ? weft::DType::f32 : weft::DType::bf16,
                             .warmup = static_cast<int>(number(9)),
                             .steps = static_cast<int>(number(10)),
                             .tuned = asks("tuned"),
                             .kernels = asks("kernels")};
  try {
    fmt::print("{}\n", weft::run(a).dump());
  } catch (const std::exception& error) {
    fmt::print(stderr, "weft_bench_gpu_training: {}\n", error.what());
    return 1;
  }
}
