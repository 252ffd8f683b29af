#include "launcher/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/philox.hpp"
#include "launcher/logits.hpp"

namespace weft {

std::int32_t choose_token(std::vector<float> logits, const SamplingOptions& options, double uniform) {
  for (const float logit : logits)
    if (!std::isfinite(logit)) fail("the model's logits are not finite: nothing can be sampled");
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (options.temperature <= 0) return *std::ranges::min_element(order, likelier);
  std::size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(kept), likelier);
  std::vector<double> weights(kept);
  const double highest = logits[static_cast<std::size_t>(order[0])];
  for (std::size_t i = 0; i < kept; ++i)
    weights[i] = std::exp((logits[static_cast<std::size_t>(order[i])] - highest) / options.temperature);
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1) {
    double sum = 0;
    std::size_t nucleus = 0;
    while (nucleus < kept && sum < options.top_p * total) sum += weights[nucleus++];
    kept = std::max<std::size_t>(1, nucleus);
    total = sum;
  }
  double left = uniform * total;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

void sample_tokens(Engine& engine, Communicator& group, const LanguageModel& model, std::vector<std::int32_t> text,
                   const SamplingOptions& options, const std::function<bool(std::int32_t)>& emit) {
  WEFT_CHECK(!text.empty(), "an empty prompt");
  const std::int64_t window = model.config().max_seq, vocab = model.config().vocab, width = model.config().d_model;
  const PhiloxKey key = philox_key(options.seed, "sample");
  Allocator& memory = engine.memory();
  std::vector<MixerState> states;
  std::int64_t seen = 0;  // tokens of `text` that the states hold, counted from `base`
  std::int64_t base = 0;
  const auto restart = [&](std::int64_t keep) {
    base = std::max<std::int64_t>(0, static_cast<std::int64_t>(text.size()) - keep);
    seen = 0;
    states = model.make_states(memory, 1, window, options.compute);
  };
  const bool unbounded = model.unbounded();
  restart(unbounded ? static_cast<std::int64_t>(text.size()) : std::max<std::int64_t>(1, window - 1));
  for (std::int64_t drawn = 0; drawn < options.tokens; ++drawn) {
    if (!unbounded && static_cast<std::int64_t>(text.size()) - base > window)
      restart(std::max<std::int64_t>(1, window / 2));
    const std::int64_t count = static_cast<std::int64_t>(text.size()) - base - seen;
    const Tensor tokens = Tensor::empty(memory, {1, count}, DType::i32, MemoryUse::activation);
    const auto& transfer = engine.exec().kernels().transfer;
    transfer.upload(engine.exec(), View(text.data() + base + seen, {1, count}, DType::i32), tokens.mut());
    OpContext cx{engine.exec(), nullptr, options.compute, {}, nullptr};
    cx.tokens = {0, window, count, {seen, 0}, count};
    const Tensor hidden = model.hidden(cx, tokens, &states);
    seen += count;
    const Tensor last = hidden.window((count - 1) * width, {1, width});
    std::vector<float> row(static_cast<std::size_t>(vocab));
    logits_on_host(engine, model, cx, last, row);
    const double u = uniform(philox_word(key, static_cast<std::uint64_t>(drawn)));
    std::int32_t said[2] = {0, 0};  // the token, and whether to go on
    if (group.rank() == 0) {
      said[0] = choose_token(std::move(row), options, u);
      said[1] = emit(said[0]) ? 1 : 0;
    }
    group.broadcast(MutView(said, {2}, DType::i32), 0).wait();
    text.push_back(said[0]);
    if (said[1] == 0) return;
  }
}

}  // namespace weft
