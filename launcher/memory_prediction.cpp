#include "launcher/memory_prediction.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "launcher/counting_device.hpp"
#include "launcher/evaluation.hpp"
#include "parallel/comm/transport.hpp"
#include "parallel/zero.hpp"

namespace weft {
namespace {

/// Ranks that are not there: collectives end at once, on host memory as if all ranks did what this one does.
class PretendTransport final : public Transport {
 public:
  PretendTransport(int ranks, int rank, bool recordable)
      : rank_(rank), recordable_(recordable), members_(static_cast<std::size_t>(ranks)) {
    std::iota(members_.begin(), members_.end(), 0);
  }
  int rank() const override { return rank_; }
  const std::vector<int>& members() const override { return members_; }
  bool serves(DeviceId) const override { return true; }
  bool recordable() const override { return recordable_; }
  void start(std::shared_ptr<Operation> operation) override {
    const Collective& what = operation->what();
    if (what.output && what.output.device == DeviceId{}) answer(what);
    operation->finish();
  }
  int free_context() const override { return 0; }
  std::unique_ptr<Transport> subgroup(const std::vector<int>& members, int, const std::string&) override {
    const auto place = std::ranges::find(members, rank_) - members.begin();
    return std::make_unique<PretendTransport>(static_cast<int>(members.size()), static_cast<int>(place), recordable_);
  }

 private:
  void answer(const Collective& what) const {
    auto* out = static_cast<char*>(what.output.data);
    const std::size_t bytes = what.input ? what.input.bytes() : 0;
    if (what.kind == CollectiveKind::all_gather)
      for (std::size_t i = 0; i < members_.size(); ++i) std::memmove(out + i * bytes, what.input.data, bytes);
    else if (what.kind == CollectiveKind::recv || what.kind == CollectiveKind::exclusive_scan)
      std::memset(out, 0, what.output.bytes());
    else if (what.input && what.input.data != what.output.data)
      std::memmove(out, what.input.data, what.output.bytes());
  }

  int rank_;
  bool recordable_;
  std::vector<int> members_;
};

std::string text_of(std::size_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size < 0x1p20) return fmt::format("{:.1f} KiB", size / 0x1p10);
  return size < 0x1p30 ? fmt::format("{:.1f} MiB", size / 0x1p20) : fmt::format("{:.1f} GiB", size / 0x1p30);
}

void validate(const MemoryPlan& plan, const Worker& worker, const LanguageModel& model) {
  EvaluationOptions options;
  options.micro_batch = plan.validated;
  options.compute = plan.step.compute;
  options.sharding = plan.step.sharding;
  const auto tokens = static_cast<std::size_t>(plan.validated * worker.mesh.size(Axis::dp) * plan.step.seq + 1);
  const EvalWindows windows({memory_tokens("prediction", std::string(tokens, '.'))}, plan.step.seq);
  evaluate(worker, model, windows, options, [] { return false; });
}

}  // namespace

MemoryStats predict_memory(const MemoryPlan& plan) {
  auto device = make_counting_device(plan.device, plan.facts, plan.threads);
  const CountingDevice& counted = *device;
  Engine engine(std::move(device));
  CommLog log;
  const auto group_of = [&](int ranks, int rank, const std::string& name) {
    if (ranks == 1) return make_self_communicator(log, name, 0, &engine.device());
    return std::make_unique<Communicator>(std::make_unique<PretendTransport>(ranks, rank, plan.recorded), log, name,
                                          Priority::urgent);
  };
  const MeshSizes& sizes = plan.mesh;
  const std::unique_ptr<Communicator> world = group_of(sizes.pp * sizes.dp * sizes.sp * sizes.tp, plan.rank, "world");
  Mesh mesh(*world, sizes, [&](const MeshGroup& group) { return group_of(group.size, group.rank, group.name); });
  const std::unique_ptr<BuiltModel> built = build_model(plan.model, mesh, plan.step.sharding);
  allocate_parameters(engine.exec(), built->store, mesh, plan.step.buckets.zero, plan.bucket_bytes);
  Optimizer optimizer(plan.optimizer, built->store, engine.exec());
  SamplerOptions order;
  order.seq = plan.step.seq;
  const TokenSources tokens = {
      memory_tokens("prediction", std::string(static_cast<std::size_t>(2 * order.seq + 2), '.'))};
  const Sampler sampler(tokens, order);
  StepOptions options = plan.step;
  options.replay = plan.recorded ? StepReplay::automatic : StepReplay::off;
  TrainingStep step({engine, mesh, log}, *built, optimizer, sampler, options);
  // In the second step it is known what is gathered ahead; the third is recorded.
  for (int i = 1; i <= (plan.recorded ? 3 : 2); ++i) step.run(i, 0, 0);
  if (plan.validated > 0) validate(plan, {engine, mesh, log}, *built->model);
  MemoryStats stats = engine.memory().stats();
  stats.total_peak = counted.most_held();
  return stats;
}

std::string memory_misfit(const MemoryPlan& plan, std::size_t limit) {
  const MemoryStats stats = predict_memory(plan);
  if (stats.total_peak <= limit) return {};
  const auto peak = [&](MemoryUse use) { return text_of(stats.peak[static_cast<std::size_t>(use)]); };
  std::string fitting;
  for (const Recompute recompute : {Recompute::none, Recompute::block})
    for (int stage = 0; stage <= 3; ++stage) {
      MemoryPlan other = plan;
      other.step.buckets.zero = static_cast<ZeroStage>(stage);
      other.step.recompute = recompute;
      if (predict_memory(other).total_peak > limit) continue;
      fitting += fmt::format("{}--zero {}{}", fitting.empty() ? "" : "; ", stage,
                             recompute == Recompute::block ? " --recompute block" : "");
    }
  return fmt::format(
      "--memory-limit: found {}; a rank needs {} at least (parameters {}, gradients {}, optimizer {}, activations {}), "
      "{} too much; of the same ranks {}",
      text_of(limit), text_of(stats.total_peak), peak(MemoryUse::parameter), peak(MemoryUse::gradient),
      peak(MemoryUse::optimizer), peak(MemoryUse::activation), text_of(stats.total_peak - limit),
      fitting.empty() ? "no --zero and --recompute fit: more ranks with --zero 3 or --tp, or a smaller "
                        "--micro-batch, would be right"
                      : "these fit: " + fitting);
}

}  // namespace weft
