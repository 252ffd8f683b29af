#include "launcher/sharding_setup.hpp"

#include <algorithm>
#include <cmath>

#include "models/registry.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

/// Ranks along the axes that this build shards over.
struct Ranks {
  int dp, sp, tp;
};

std::string text_of(const Ranks& ranks) {
  std::string text;
  const auto add = [&](std::string_view axis, int size) {
    if (size > 1) text += fmt::format("{}--{} {}", text.empty() ? "" : " ", axis, size);
  };
  add("dp", ranks.dp);
  add("sp", ranks.sp);
  add("tp", ranks.tp);
  return text.empty() ? "one rank" : text;
}

bool exchange_fits(const LmConfig& config, int tp, int sp) {
  for (int rank = 0; rank < tp; ++rank) {
    const HeadShare own = share_heads(config.heads, config.kv_heads, tp, rank);
    if (!heads_fit(own.heads.size(), own.kv_heads.size(), sp)) return false;
  }
  return true;
}

/// What is wrong with a layout; empty if it fits.
std::string misfit(const Ranks& ranks, const LayoutOptions& layout, const LmConfig& config, const LayoutNeeds& needs) {
  const MixerEntry& mixer = find_mixer(config.mixer);
  if (std::string wrong = mixer_misfit(mixer, ranks.sp, ranks.tp, layout.tp_sequence == TpSequenceChoice::on);
      !wrong.empty())
    return wrong;
  if (ranks.tp > config.d_model)
    return fmt::format("--tp: found {}; --d-model {} goes over that many ranks or fewer", ranks.tp, config.d_model);
  if (mixer.uses_heads && !heads_fit(config.heads, config.kv_heads, ranks.tp))
    return fmt::format("--tp: found {}; --heads {} with --kv-heads {} go over {} ranks", ranks.tp, config.heads,
                       config.kv_heads, fitting_tp(config.heads, config.kv_heads));
  if (ranks.tp > config.d_ff)
    return fmt::format("--tp: found {}; --d-ff {} goes over that many ranks or fewer", ranks.tp, config.d_ff);
  if (config.feed_forward == FeedForwardStyle::boom && ranks.tp > config.d_ff / config.d_model)
    return fmt::format("--tp: found {}; --mlp boom gives each rank whole chunks of --d-model {}, --d-ff {} has {}",
                       ranks.tp, config.d_model, config.d_ff, config.d_ff / config.d_model);
  if (ranks.tp > config.vocab)
    return fmt::format("--tp: found {}; a vocabulary of {} goes over that many ranks or fewer", ranks.tp, config.vocab);
  if (needs.seq > 0 && ranks.sp > needs.seq)
    return fmt::format("--sp: found {}; --seq {} goes over that many ranks or fewer", ranks.sp, needs.seq);
  if (mixer.uses_heads && layout.sp_attention == SpAttentionChoice::exchange &&
      !exchange_fits(config, ranks.tp, ranks.sp))
    return fmt::format(
        "--sp-attention: found exchange; --heads {} with --kv-heads {} do not go over --sp {} with --tp "
        "{}, ring would be right",
        config.heads, config.kv_heads, ranks.sp, ranks.tp);
  if (needs.batch > 0 && needs.batch % ranks.dp != 0)
    return fmt::format(
        "--batch: {} sequences do not divide over {} data-parallel ranks; a multiple of {} would be "
        "right",
        needs.batch, ranks.dp, ranks.dp);
  return {};
}

/// Layouts of as many ranks that fit, those most like `asked` first.
std::string fitting(const Ranks& asked, const LayoutOptions& layout, const LmConfig& config, const LayoutNeeds& needs) {
  constexpr std::size_t most = 6;
  const int ranks = asked.dp * asked.sp * asked.tp;
  std::vector<Ranks> found;
  for (int tp = 1; tp <= ranks; ++tp)
    for (int sp = 1; ranks % tp == 0 && sp <= ranks / tp; ++sp) {
      const Ranks mesh{ranks / tp / sp, sp, tp};
      if (ranks / tp % sp == 0 && misfit(mesh, layout, config, needs).empty()) found.push_back(mesh);
    }
  const auto distance = [&](const Ranks& mesh) {
    const auto apart = [](int a, int b) { return std::abs(std::log2(static_cast<double>(a) / b)); };
    return apart(mesh.tp, asked.tp) + apart(mesh.sp, asked.sp);
  };
  std::ranges::stable_sort(found, {}, distance);
  std::string text;
  for (std::size_t i = 0; i < std::min(most, found.size()); ++i) text += (i > 0 ? "; " : "") + text_of(found[i]);
  return text.empty() ? "none" : text;
}

}  // namespace

std::string layout_misfit(const MeshSizes& mesh, const LayoutOptions& layout, const LmConfig& config,
                          const LayoutNeeds& needs) {
  return misfit({mesh.dp, mesh.sp, mesh.tp}, layout, config, needs);
}

ShardingOptions plan_sharding(const LayoutOptions& layout, const LmConfig& config, const LayoutNeeds& needs,
                              const Mesh& mesh) {
  const Ranks ranks{mesh.size(Axis::dp), mesh.size(Axis::sp), mesh.size(Axis::tp)};
  if (const std::string wrong = misfit(ranks, layout, config, needs); !wrong.empty()) {
    const int all = ranks.dp * ranks.sp * ranks.tp;
    fail_user(
        "{}{}", wrong,
        all == 1 ? "" : fmt::format("; layouts of {} ranks that fit: {}", all, fitting(ranks, layout, config, needs)));
  }
  const MixerEntry& mixer = find_mixer(config.mixer);
  ShardingOptions sharding;
  // Shared-out rows move as many bytes forward as whole ones, and hold and work on 1/tp of the stream.
  sharding.tp_sequence = layout.tp_sequence != TpSequenceChoice::off && !mixer.whole_rows;
  sharding.contiguous_tokens = !mixer.uses_heads;
  sharding.relay_parts = layout.relay_parts;
  if (!mixer.uses_heads) return sharding;
  switch (layout.sp_attention) {
    case SpAttentionChoice::automatic:
      sharding.sp_attention = choose_sequence_attention(config.heads, config.kv_heads, ranks.tp, ranks.sp);
      break;
    case SpAttentionChoice::ring: sharding.sp_attention = SequenceAttention::ring; break;
    case SpAttentionChoice::exchange: sharding.sp_attention = SequenceAttention::exchange; break;
  }
  return sharding;
}

}  // namespace weft
