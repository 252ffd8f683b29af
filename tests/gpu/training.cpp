#include "tests/gpu/training.hpp"

#include <cmath>

#include "parallel/comm/comm_log.hpp"

namespace weft::test {
namespace {

constexpr std::uint64_t seed = 5;
constexpr double learning_rate = 3e-3;

TokenSources text(std::int64_t bytes) {
  std::string all;
  for (int i = 0; static_cast<std::int64_t>(all.size()) < bytes; ++i)
    all += fmt::format("line {} of {} says {}; ", i, i * i % 17, i % 3 ? "warp" : "weft");
  return {memory_tokens("text", all)};
}

std::vector<float> download(ExecContext& exec, const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
  exec.kernels().transfer.download(exec, tensor.view(), MutView(values.data(), tensor.shape(), DType::f32));
  return values;
}

double norm(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

double worst(const std::vector<double>& right, const std::vector<double>& found) {
  double most = 0;
  for (std::size_t i = 0; i < right.size(); ++i) most = std::fmax(most, std::abs(found[i] / right[i] - 1));
  return most;
}

}  // namespace

Training train(std::unique_ptr<Device> device, const TrainingPlan& plan) {
  Engine engine(std::move(device));
  ExecContext& exec = engine.exec();
  CommLog log;
  const auto self = make_self_communicator(log, "self", 0, &engine.device());
  Mesh mesh(*self, log, {});
  const auto built = build_model(plan.config, mesh);
  built->store.allocate_values(exec);
  built->store.allocate_grads(exec);
  built->store.initialize(exec, seed);
  Optimizer optimizer(AdamWSpec{}, built->store, exec);
  StepOptions options;
  options.batch = plan.batch;
  options.micro_batch = plan.micro_batch;
  options.seq = plan.config.max_seq;
  options.seed = seed;
  options.clip = 1;
  options.compute = plan.compute;
  options.replay = plan.replay;
  SamplerOptions order;
  order.seq = options.seq;
  order.seed = seed;
  const Sampler sampler(text(20 * plan.batch * (options.seq + 1)), order);
  TrainingStep step({engine, mesh, log}, *built, optimizer, sampler, options);
  Training result;
  for (int i = 1; i <= plan.steps; ++i) {
    const StepResult done = step.run(i, (i - 1) * plan.batch, learning_rate);
    result.losses.push_back(done.loss);
    result.norms.push_back(done.grad_norm);
    if (i > 1) continue;
    for (const Parameter* parameter : built->store.all()) {
      result.names.push_back(parameter->name());
      result.gradients.push_back(download(exec, parameter->grad()));
    }
  }
  result.values = download(exec, built->store.flat_values());
  return result;
}

Apart compare(const Training& right, const Training& found) {
  Apart apart{worst(right.losses, found.losses), worst(right.norms, found.norms), 0, 0, ""};
  double global = 0, all = 0;
  for (const auto& gradient : right.gradients) global = std::hypot(global, norm(gradient));
  for (std::size_t i = 0; i < right.gradients.size(); ++i) {
    std::vector<float> difference = found.gradients[i];
    for (std::size_t j = 0; j < difference.size(); ++j) difference[j] -= right.gradients[i][j];
    const double distance = norm(difference), relative = distance / std::max(norm(right.gradients[i]), 1e-6 * global);
    all = std::hypot(all, distance);
    if (!(relative <= apart.gradient)) {
      apart.gradient = relative;
      apart.parameter = right.names[i];
    }
  }
  apart.all_gradients = all / global;
  return apart;
}

}  // namespace weft::test
