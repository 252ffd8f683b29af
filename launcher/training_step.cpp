#include "launcher/training_step.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace weft {

DeviceBatch::DeviceBatch(Allocator& memory, const Batch& batch, std::int64_t first, std::int64_t count)
    : tokens(Tensor::empty(memory, {count, batch.seq}, DType::i32, MemoryUse::activation)),
      targets(Tensor::empty(memory, {count * batch.seq}, DType::i32, MemoryUse::activation)),
      weights(Tensor::empty(memory, {count * batch.seq}, DType::f32, MemoryUse::activation)) {
  const auto at = static_cast<std::size_t>(first * batch.seq);
  std::memcpy(tokens.mut().data, batch.tokens.data() + at, tokens.view().bytes());
  std::memcpy(targets.mut().data, batch.targets.data() + at, targets.view().bytes());
  std::memcpy(weights.mut().data, batch.weights.data() + at, weights.view().bytes());
}

TrainingStep::TrainingStep(const Worker& worker, BuiltModel& built, Optimizer& optimizer, const Sampler& sampler,
                           StepOptions options)
    : worker_(worker), built_(built), optimizer_(optimizer), sampler_(sampler), options_(options),
      replicas_(worker.mesh.comm({Axis::dp, Axis::sp})), buckets_(built.store, replicas_, options.buckets) {
  Allocator& memory = worker.engine.memory();
  const auto sites = static_cast<std::int64_t>(built.model->dropout_sites());
  dropout_keys_ = Tensor::empty(memory, {std::max<std::int64_t>(1, sites) * std::int64_t{sizeof(PhiloxKey)}}, DType::u8,
                                MemoryUse::workspace);
  scalars_ = Tensor::empty(memory, {2}, DType::f64, MemoryUse::workspace);
  weight_sum_ = Tensor::empty(memory, {1}, DType::f64, MemoryUse::workspace);
  sum_of_squares_ = Tensor::empty(memory, {1}, DType::f64, MemoryUse::workspace);
}

TrainingStep::~TrainingStep() {
  for (Work* work : {&weights_, &shared_}) drain(*work);
}

void TrainingStep::draw_dropout_keys(std::int64_t step) {
  auto* keys = static_cast<PhiloxKey*>(dropout_keys_.mut().data);
  for (int site = 0; site < built_.model->dropout_sites(); ++site)
    keys[site] = philox_key(options_.seed, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(site));
}

double TrainingStep::forward_backward(std::int64_t first, std::int64_t count, double total_weight, MicroBatch kind) {
  ExecContext& exec = worker_.engine.exec();
  const std::int64_t local = options_.batch / worker_.mesh.size(Axis::dp);
  const DeviceBatch device(worker_.engine.memory(), batch_, first, count);
  OpContext cx{exec, &tape_, options_.compute, {}, nullptr};
  cx.tokens = {worker_.mesh.coordinate(Axis::dp) * local + first, options_.seq, options_.seq, {0, 0}, options_.seq};
  cx.dropout_keys = static_cast<const PhiloxKey*>(dropout_keys_.view().data);
  tape_.begin(kind);
  worker_.log.set_phase("forward");
  const ops::CrossEntropy loss = built_.model->loss(
      cx, device.tokens, {device.targets.view(), device.weights.view(), static_cast<float>(1.0 / total_weight)});
  worker_.log.set_phase("backward");
  tape_.backward(exec, loss.loss);
  flops_ += tape_.ledger().totals(Pass::forward).flops + tape_.ledger().totals(Pass::backward).flops;
  return *loss.loss.view().as<double>();
}

StepResult TrainingStep::run(std::int64_t step, std::int64_t first_sample, double lr, bool stop) {
  ExecContext& exec = worker_.engine.exec();
  const KernelTable& kernels = exec.kernels();
  const std::int64_t local = options_.batch / worker_.mesh.size(Axis::dp);
  worker_.log.set_step(step);
  worker_.log.set_phase("data");
  sampler_.fill(first_sample + worker_.mesh.coordinate(Axis::dp) * local, local, batch_);
  double* weight_sum = weight_sum_.mut().as<double>();
  *weight_sum = std::accumulate(batch_.weights.begin(), batch_.weights.end(), 0.0);
  weights_ = replicas_.all_reduce(weight_sum_.mut(), {ReduceOp::sum, Wire::native, weight_sum_.keep_alive()});
  draw_dropout_keys(step);
  built_.store.begin_step();
  buckets_.begin_step();
  flops_ = 0;
  StepState& state = optimizer_.host_state();
  state.step = step;
  state.lr = static_cast<float>(lr);
  weights_.wait();

  double* scalars = scalars_.mut().as<double>();
  scalars[0] = 0;
  scalars[1] = stop ? 1 : 0;
  for (std::int64_t first = 0; first < local; first += options_.micro_batch) {
    const std::int64_t count = std::min(options_.micro_batch, local - first);
    const MicroBatch kind = first + count == local ? MicroBatch::last : MicroBatch::inner;
    scalars[0] += forward_backward(first, count, *weight_sum, kind);
  }
  shared_ = replicas_.all_reduce(scalars_.mut(), {ReduceOp::sum, Wire::native, scalars_.keep_alive()});
  finish_unused(exec, built_.store.all());
  worker_.log.set_phase("gradients");
  buckets_.finish();
  kernels.elementwise.dot(exec, built_.store.flat_grads().view(), built_.store.flat_grads().view(), Write::overwrite,
                          sum_of_squares_.mut());
  shared_.wait();
  worker_.log.set_phase("optimizer");
  optimizer_.step(exec, sum_of_squares_.view(), scalars_.view().slice(0, 1), options_.clip);
  return {scalars[0], state.grad_norm, state.skip != 0, scalars[1] > 0, flops_};
}

std::string TrainingStep::find_nonfinite(const StepResult& result) const {
  const auto first = [&](auto&& tensor_of) -> const Parameter* {
    for (const Parameter* parameter : built_.store.all()) {
      const View view = tensor_of(*parameter).view();
      const float* data = view.as<float>();
      if (!std::all_of(data, data + view.numel(), [](float x) { return std::isfinite(x); })) return parameter;
    }
    return nullptr;
  };
  const bool loss_finite = std::isfinite(result.loss);
  if (const Parameter* parameter = first([](const Parameter& p) { return p.value(); }))
    return fmt::format("the parameter {}", parameter->name());
  if (const Parameter* parameter = first([](const Parameter& p) { return p.grad(); }))
    return fmt::format("{}the gradient of {}", loss_finite ? "" : "the loss with ", parameter->name());
  return loss_finite ? "the norm of the gradients" : "the loss";
}

}  // namespace weft
