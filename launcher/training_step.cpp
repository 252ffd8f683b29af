#include "launcher/training_step.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

template <class T>
View host_view(const std::vector<T>& values) {
  return {values.data(), {static_cast<std::int64_t>(values.size())}, dtype_of<T>};
}

}  // namespace

DeviceBatch::DeviceBatch(ExecContext& exec, std::int64_t count, std::int64_t seq)
    : seq_(seq), tokens_(Tensor::empty(exec.memory(), {count, seq}, DType::i32, MemoryUse::activation)),
      targets_(Tensor::empty(exec.memory(), {count * seq}, DType::i32, MemoryUse::activation)),
      weights_(Tensor::empty(exec.memory(), {count * seq}, DType::f32, MemoryUse::activation)) {}

void DeviceBatch::fill(ExecContext& exec, const Batch& batch) {
  const auto& upload = exec.kernels().transfer.upload;
  upload(exec, host_view(batch.tokens), tokens_.mut());
  upload(exec, host_view(batch.targets), targets_.mut());
  upload(exec, host_view(batch.weights), weights_.mut());
}

ops::LossTargets DeviceBatch::targets(std::int64_t first, std::int64_t count) const {
  const std::int64_t begin = first * seq_, end = (first + count) * seq_;
  return {targets_.view().slice(begin, end), weights_.view().slice(begin, end), 1.0f};
}

TrainingStep::TrainingStep(const Worker& worker, BuiltModel& built, Optimizer& optimizer, const Sampler& sampler,
                           StepOptions options)
    : worker_(worker), built_(built), optimizer_(optimizer), sampler_(sampler), options_(options),
      replicas_(worker.mesh.comm({Axis::dp, Axis::sp})),
      all_(worker.mesh.comm({Axis::pp, Axis::dp, Axis::sp, Axis::tp})),
      buckets_(worker.engine.exec(), built.store, worker.mesh, options.buckets),
      values_(worker.engine.exec(), built.store, worker.mesh, options.buckets.zero),
      counted_(counted_gradients(built.store, worker.mesh, options.buckets.zero)),
      tokens_(share_tokens(options.seq, token_order(options.sharding), worker.mesh.size(Axis::sp),
                           worker.mesh.coordinate(Axis::sp))),
      inputs_(worker.engine.exec(), local(), tokens_.seq_local) {
  Device& device = worker.engine.device();
  const auto scalars = [&](Allocator& memory, std::int64_t count) {
    return Tensor::empty(memory, {count}, DType::f64, MemoryUse::workspace);
  };
  const auto sites = static_cast<std::int64_t>(built.model->dropout_sites());
  dropout_keys_ = Tensor::empty(device.memory(), {std::max<std::int64_t>(1, sites) * std::int64_t{sizeof(PhiloxKey)}},
                                DType::u8, MemoryUse::workspace);
  scalars_ = scalars(device.memory(), 3);
  sum_of_squares_ = scalars(device.memory(), 1);
  weight_sum_ = scalars(device.host_memory(), 1);
  const auto bytes = static_cast<std::int64_t>(scalars_.view().bytes() + sizeof(StepState));
  for (Readback& readback : readbacks_)
    readback = {0, Tensor::empty(device.host_memory(), {bytes}, DType::u8, MemoryUse::workspace), device.make_event()};
}

TrainingStep::~TrainingStep() {
  for (Work* work : {&weights_, &shared_}) drain(*work);
}

std::int64_t TrainingStep::local() const { return options_.batch / worker_.mesh.size(Axis::dp); }

// Takes this rank's part of the batch, and starts the sum of its weights over all ranks.
void TrainingStep::prepare(std::int64_t first_sample) {
  if (prepared_sample_ == first_sample) return;
  weights_.wait();
  sampler_.fill(first_sample + worker_.mesh.coordinate(Axis::dp) * local(), local(), batch_);
  keep_tokens(batch_, token_intervals(tokens_));
  *weight_sum_.mut().as<double>() = std::accumulate(batch_.weights.begin(), batch_.weights.end(), 0.0);
  weights_ = replicas_.all_reduce(weight_sum_.mut(), {ReduceOp::sum, Wire::native, weight_sum_.keep_alive()});
  prepared_sample_ = first_sample;
}

// All that changes from step to step goes to fixed places on the device, so that a recorded step finds it there.
void TrainingStep::upload_inputs(std::int64_t step, double lr, StepNotes notes) {
  ExecContext& exec = worker_.engine.exec();
  const auto& upload = exec.kernels().transfer.upload;
  std::vector<PhiloxKey> keys;
  for (int site = 0; site < built_.model->dropout_sites(); ++site)
    keys.push_back(philox_key(options_.seed, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(site)));
  const auto key_bytes = static_cast<std::int64_t>(keys.size() * sizeof(PhiloxKey));
  upload(exec, View(keys.data(), {key_bytes}, DType::u8), dropout_keys_.mut().slice(0, key_bytes));
  optimizer_.set_rate(exec, static_cast<float>(lr));
  const double counts[] = {notes.stop ? 1.0 : 0.0, notes.saving ? 1.0 : 0.0};
  upload(exec, View(counts, {2}, DType::f64), scalars_.mut().slice(1, 3));
  weights_.wait();
  // With weights over their global sum, losses and gradients of all ranks simply add up to the mean's.
  const double sum = *weight_sum_.view().as<double>(), scale = sum > 0 ? 1 / sum : 0;
  for (float& weight : batch_.weights) weight = static_cast<float>(weight * scale);
  inputs_.fill(exec, batch_);
  prepared_sample_ = -1;
}

void TrainingStep::forward_backward(std::int64_t first, std::int64_t count, MicroBatch kind) {
  ExecContext& exec = worker_.engine.exec();
  OpContext cx{exec, &tape_, options_.compute, {}, nullptr};
  cx.tokens = tokens_;
  cx.recompute = options_.recompute;
  cx.tokens.first_sequence = worker_.mesh.coordinate(Axis::dp) * local() + first;
  cx.dropout_keys = static_cast<const PhiloxKey*>(dropout_keys_.view().data);
  const ops::LossTargets targets = inputs_.targets(first, count);
  tape_.begin(kind);
  values_.begin_pass();
  worker_.log.set_phase("forward");
  const ops::CrossEntropy loss = built_.model->loss(cx, inputs_.tokens(first, count), targets);
  exec.kernels().elementwise.dot(exec, loss.rows.view(), targets.weights, first == 0 ? Write::overwrite : Write::add,
                                 scalars_.mut().slice(0, 1));
  worker_.log.set_phase("backward");
  tape_.backward(exec, loss.loss);
  values_.end_pass();
  flops_ += tape_.ledger().totals(Pass::forward).flops + tape_.ledger().totals(Pass::backward).flops;
}

// Everything between the inputs and the results: it reads and writes nothing on the host, so that it can be recorded.
void TrainingStep::compute() {
  ExecContext& exec = worker_.engine.exec();
  built_.store.begin_step();
  buckets_.begin_step();
  flops_ = 0;
  // Where a micro-batch's gradients are summed over the ranks by themselves, it is the last of its round.
  const bool rounds = buckets_.sums_each_round();
  for (std::int64_t first = 0; first < local(); first += options_.micro_batch) {
    const std::int64_t count = std::min(options_.micro_batch, local() - first);
    const bool last = first + count == local();
    if (rounds) built_.store.begin_step();
    if (rounds || first == 0) buckets_.begin_round();
    forward_backward(first, count, rounds || last ? MicroBatch::last : MicroBatch::inner);
    if (rounds && !last) finish_unused(exec, built_.store.all());
  }
  // The ranks of a model's copy have the same loss: one of them counts.
  if (worker_.mesh.coordinate(Axis::tp) > 0) exec.kernels().elementwise.fill(exec, 0.0f, scalars_.mut().slice(0, 1));
  shared_ = all_.all_reduce(scalars_.mut(), {ReduceOp::sum, Wire::native, scalars_.keep_alive()});
  finish_unused(exec, built_.store.all());
  worker_.log.set_phase("gradients");
  buckets_.finish();
  sum_squares();
  shared_.wait();
  worker_.log.set_phase("optimizer");
  optimizer_.step(exec, sum_of_squares_.view(), scalars_.view().slice(0, 1), options_.clip);
  values_.updated();
  // What is recorded must not reach into the next step.
  if (options_.replay == StepReplay::automatic && all_.recordable()) values_.settle();
}

void TrainingStep::sum_squares() {
  ExecContext& exec = worker_.engine.exec();
  const auto& elementwise = exec.kernels().elementwise;
  if (counted_.empty()) elementwise.fill(exec, 0.0f, sum_of_squares_.mut());
  Write write = Write::overwrite;
  for (const Range& range : counted_) {
    const View grads = built_.store.flat_grads().view().slice(range.begin, range.end);
    elementwise.dot(exec, grads, grads, std::exchange(write, Write::add), sum_of_squares_.mut());
  }
  worker_.mesh.comm(norm_axes(options_.buckets.zero))
      .all_reduce(sum_of_squares_.mut(), {.keep = sum_of_squares_.keep_alive()})
      .wait();
}

void TrainingStep::compute_or_replay() {
  // By then every buffer, library and packed weight that a step needs is there.
  constexpr int steps_before_recording = 2;
  if (!graph_ && options_.replay == StepReplay::automatic && computed_ >= steps_before_recording && all_.recordable()) {
    graph_ = worker_.engine.device().capture([this] {
      // An evaluation may have packed the weights as they are; each replay must pack them as they will be.
      for (Parameter* parameter : built_.store.all()) parameter->changed();
      compute();
    });
    if (!graph_) options_.replay = StepReplay::off;
  }
  if (!graph_) {
    compute();
    ++computed_;
    return;
  }
  worker_.log.set_phase("replay");
  graph_->launch();
  values_.replayed();
  for (Parameter* parameter : built_.store.all()) parameter->changed();
}

void TrainingStep::read_back(std::int64_t step) {
  ExecContext& exec = worker_.engine.exec();
  Readback& readback = readbacks_[static_cast<std::size_t>(next_readback_)];
  next_readback_ = (next_readback_ + 1) % most_in_flight;
  readback.step = step;
  const auto split = static_cast<std::int64_t>(scalars_.view().bytes());
  const MutView host = readback.host.mut();
  const auto& download = exec.kernels().transfer.download_later;
  download(exec, scalars_.view(), host.slice(0, split));
  download(exec, optimizer_.state().view(), host.slice(split, host.numel()));
  readback.there->record(exec);
  ++in_flight_;
}

void TrainingStep::start(std::int64_t step, std::int64_t first_sample, double lr, StepNotes notes) {
  WEFT_CHECK(in_flight_ < most_in_flight, "{} steps are in flight", in_flight_);
  worker_.log.set_step(step);
  worker_.log.set_phase("data");
  prepare(first_sample);
  upload_inputs(step, lr, notes);
  compute_or_replay();
  read_back(step);
  if (worker_.engine.device().asynchronous()) prepare(first_sample + options_.batch);
}

StepResult TrainingStep::finish() {
  WEFT_CHECK(in_flight_ > 0, "no step is in flight");
  const auto oldest = static_cast<std::size_t>((next_readback_ + most_in_flight - in_flight_) % most_in_flight);
  Readback& readback = readbacks_[oldest];
  readback.there->wait();
  --in_flight_;
  double scalars[3];
  StepState state;
  const auto* bytes = static_cast<const char*>(readback.host.view().data);
  std::memcpy(scalars, bytes, sizeof scalars);
  std::memcpy(&state, bytes + sizeof scalars, sizeof state);
  const StepNotes notes{scalars[1] > 0, scalars[2] > 0};
  return {readback.step, scalars[0], state.grad_norm, state.skip != 0, state.applied, notes, flops_};
}

StepResult TrainingStep::run(std::int64_t step, std::int64_t first_sample, double lr, StepNotes notes) {
  start(step, first_sample, lr, notes);
  return finish();
}

std::string TrainingStep::find_nonfinite(const StepResult& result) {
  const bool loss_finite = std::isfinite(result.loss);
  if (in_flight_ > 0) return loss_finite ? "a gradient" : "the loss";
  ExecContext& exec = worker_.engine.exec();
  const auto& parameters = built_.store.all();
  const auto& places = built_.store.places();
  const auto count = static_cast<std::int64_t>(places.size());
  values_.settle();
  std::vector<float> values;
  const auto finite = [&](const Tensor& tensor) {
    values.resize(static_cast<std::size_t>(tensor.numel()));
    exec.kernels().transfer.download(exec, tensor.view(), MutView(values.data(), tensor.shape(), DType::f32));
    return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
  };
  // Values by their parameter's number, gradients behind them; each rank looks at its shards.
  std::int64_t found = 2 * count;
  for (const ParameterStore::Place& place : places) {
    const std::int64_t number = std::ranges::find(parameters, place.parameter) - parameters.begin();
    if (!finite(built_.store.stored_value(place).data)) found = std::min(found, number);
    if (!finite(built_.store.stored_grad(place).data)) found = std::min(found, count + number);
  }
  all_.all_reduce(MutView(&found, {1}, DType::i64), {.op = ReduceOp::min}).wait();
  if (found == 2 * count) return loss_finite ? "the norm of the gradients" : "the loss";
  const std::string& name = parameters[static_cast<std::size_t>(found % count)]->name();
  if (found < count) return fmt::format("the parameter {}", name);
  return fmt::format("{}the gradient of {}", loss_finite ? "" : "the loss with ", name);
}

}  // namespace weft
