#include "models/mixers/attention_heads.hpp"

namespace weft {
namespace {

void check(const MixerOptions& options) {
  if (options.heads < 1 || options.d_model % options.heads != 0)
    fail_user("--heads: {} heads do not divide --d-model {}", options.heads, options.d_model);
  if (options.kv_heads < 1 || options.heads % options.kv_heads != 0)
    fail_user("--kv-heads: {} key-value heads do not divide --heads {}", options.kv_heads, options.heads);
  const std::int64_t head_dim = options.d_model / options.heads;
  if (head_dim > ops::widest_head)
    fail_user("--heads: {} heads of {} give heads {} wide, at most {} is supported", options.heads, options.d_model,
              head_dim, ops::widest_head);
  if (options.rotary_theta > 0 && head_dim % 2 != 0)
    fail_user("--heads: rotary positions need an even head width, {} heads of {} give {}", options.heads,
              options.d_model, head_dim);
}

}  // namespace

HeadShare held_heads(const BuildContext& build, const MixerOptions& options) {
  check(options);
  const int ranks = build.mesh.size(Axis::tp);
  if (!heads_fit(options.heads, options.kv_heads, ranks))
    fail_user("--tp: {} ranks do not go with {} heads and {} key-value heads; {} would be right", ranks, options.heads,
              options.kv_heads, fitting_tp(options.heads, options.kv_heads));
  return share_heads(options.heads, options.kv_heads, ranks, build.mesh.coordinate(Axis::tp));
}

ops::HeadLayout head_layout(const HeadShare& held, const MixerOptions& options) {
  return {held.heads.size(), held.kv_heads.size(), options.d_model / options.heads, held.heads.begin, options.heads};
}

std::vector<WeightRows> projection_rows(const HeadShare& held, const MixerOptions& options) {
  const std::int64_t hd = options.d_model / options.heads, keys = options.d_model;
  const std::int64_t values = keys + options.kv_heads * hd;
  const Range kv{held.kv_heads.begin * hd, held.kv_heads.end * hd};
  return {{{held.heads.begin * hd, held.heads.end * hd}},
          {{keys + kv.begin, keys + kv.end}, held.copies, held.copy},
          {{values + kv.begin, values + kv.end}, held.copies, held.copy}};
}

std::int64_t projection_width(const MixerOptions& options) {
  return options.d_model + 2 * options.kv_heads * (options.d_model / options.heads);
}

}  // namespace weft
