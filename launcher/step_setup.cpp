#include "launcher/step_setup.hpp"

#include <algorithm>

namespace weft {
namespace {

std::int64_t choose_micro_batch(const Options& options, const Mesh& mesh) {
  const std::int64_t local = options.train.batch / mesh.size(Axis::dp);
  if (options.train.micro_batch > 0) return std::min(options.train.micro_batch, local);
  const std::int64_t seq = (options.train.seq + mesh.size(Axis::sp) - 1) / mesh.size(Axis::sp);
  const std::int64_t wanted = std::max<std::int64_t>(1, tokens_at_a_time / seq);
  std::int64_t best = 1;
  for (std::int64_t size = 1; size <= std::min(wanted, local); ++size)
    if (local % size == 0) best = size;
  return best;
}

}  // namespace

StepOptions make_step_options(const Options& options, const Mesh& mesh, DType compute,
                              const ShardingOptions& sharding) {
  const TrainOptions& train = options.train;
  StepOptions step;
  step.batch = train.batch;
  step.micro_batch = choose_micro_batch(options, mesh);
  step.seq = train.seq;
  step.seed = options.run.seed;
  step.clip = static_cast<float>(options.optim.clip);
  step.compute = compute;
  step.sharding = sharding;
  step.buckets = {static_cast<ZeroStage>(options.layout.zero),
                  options.layout.grad_wire == WireChoice::bf16 ? Wire::bf16 : Wire::native};
  step.recompute = options.layout.recompute == RecomputeChoice::block       ? Recompute::block
                   : options.layout.recompute == RecomputeChoice::attention ? Recompute::attention
                                                                            : Recompute::none;
  step.replay = train.cuda_graph == GraphChoice::off ? StepReplay::off : StepReplay::automatic;
  return step;
}

}  // namespace weft
