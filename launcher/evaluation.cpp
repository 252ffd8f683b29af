#include "launcher/evaluation.hpp"

#include <algorithm>
#include <numbers>
#include <numeric>

#include "launcher/training_step.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace weft {

std::int64_t evaluated_windows(const EvalWindows& windows, const EvaluationOptions& options) {
  if (options.max_targets == 0) return windows.count();
  return std::min(windows.count(), (options.max_targets + windows.seq() - 1) / windows.seq());
}

std::int64_t sequences_at_a_time(const EvaluationOptions& options, const EvalWindows& windows, int replicas) {
  if (options.micro_batch > 0) return options.micro_batch;
  const std::int64_t share = (evaluated_windows(windows, options) + replicas - 1) / replicas;
  return std::clamp<std::int64_t>(share, 1, std::max<std::int64_t>(1, tokens_at_a_time / windows.seq()));
}

std::optional<EvaluationResult> evaluate(const Worker& worker, const LanguageModel& model, const EvalWindows& windows,
                                         const EvaluationOptions& options, const std::function<bool()>& stop,
                                         const std::function<void(std::int64_t, std::int64_t)>& progress) {
  Communicator& all = worker.mesh.comm({Axis::pp, Axis::dp, Axis::sp, Axis::tp});
  const int replicas = worker.mesh.size(Axis::dp);
  const std::int64_t seq = windows.seq();
  const std::int64_t count = evaluated_windows(windows, options);
  const std::int64_t at_a_time = sequences_at_a_time(options, windows, replicas);
  const std::int64_t round = at_a_time * replicas;

  OpContext cx{worker.engine.exec(), nullptr, options.compute, {}, nullptr};
  cx.tokens =
      share_tokens(seq, token_order(options.sharding), worker.mesh.size(Axis::sp), worker.mesh.coordinate(Axis::sp));
  const std::vector<Range> intervals = token_intervals(cx.tokens);
  // The tp ranks have the same loss: one of them counts.
  const bool counts = worker.mesh.coordinate(Axis::tp) == 0;
  ExecContext& exec = worker.engine.exec();
  DeviceBatch device(exec, at_a_time, cx.tokens.seq_local);
  // On the host: loss, targets, stop.
  const Tensor sums = Tensor::empty(worker.engine.device().host_memory(), {3}, DType::f64, MemoryUse::workspace);
  double* sum = sums.mut().as<double>();
  double loss = 0, targets = 0;
  Batch batch;
  for (std::int64_t first = 0; first < count; first += round) {
    const std::int64_t mine = first + worker.mesh.coordinate(Axis::dp) * at_a_time;
    windows.fill(mine, at_a_time, batch);
    if (mine + at_a_time > count) {
      const auto kept = static_cast<std::ptrdiff_t>(std::max<std::int64_t>(0, count - mine) * seq);
      std::fill(batch.weights.begin() + kept, batch.weights.end(), 0.0f);
      std::fill(batch.targets.begin() + kept, batch.targets.end(), -1);
    }
    keep_tokens(batch, intervals);
    device.fill(exec, batch);
    const ops::CrossEntropy result = model.loss(cx, device.tokens(0, at_a_time), device.targets(0, at_a_time));
    exec.kernels().transfer.download(exec, result.loss.view(), sums.mut().slice(0, 1));
    sum[1] = std::accumulate(batch.weights.begin(), batch.weights.end(), 0.0);
    if (!counts) sum[0] = sum[1] = 0;
    sum[2] = stop() ? 1 : 0;
    all.all_reduce(sums.mut()).wait();
    if (sum[2] > 0) return std::nullopt;
    loss += sum[0];
    targets += sum[1];
    if (progress) progress(std::min(first + round, count), count);
  }
  EvaluationResult result;
  result.targets = static_cast<std::int64_t>(targets);
  result.loss = targets > 0 ? loss / targets : 0;
  if (windows.target_bytes() > 0)
    result.bits_per_byte =
        result.loss / std::numbers::ln2 * static_cast<double>(windows.targets()) / windows.target_bytes();
  return result;
}

}  // namespace weft
