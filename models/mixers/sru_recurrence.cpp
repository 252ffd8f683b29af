#include "models/mixers/sru_recurrence.hpp"

#include <algorithm>
#include <cmath>

#include "parallel/layers/token_neighbours.hpp"

namespace weft {

SruRecurrence::SruRecurrence(const BuildContext& build, std::int64_t width, Skip skip, bool causal,
                             const SruOptions& options)
    : width_(width), held_(held_channels(build, width)), relay_(build, 1, held_.size()) {
  if (!causal && width % 2 != 0) fail_user("--d-model: two directions do not divide a state of {} channels", width);
  const auto channels = [&](const char* name, Init init) {
    return &build.build.param(name, channel_slice(build, {width}, width), init);
  };
  scan_.cell = options.state_in_gates ? ScanCell::sru : ScanCell::sru_affine;
  if (options.state_in_gates) {
    scan_.v_f = channels("v_f", Init::uniform(1));
    scan_.v_r = channels("v_r", Init::uniform(1));
  }
  scan_.b_f = channels("b_f", Init::zeros());
  scan_.b_r = channels("b_r", {Init::Kind::constant, options.highway_bias});
  scan_.tanh = options.tanh;
  scan_.skip_in_u = skip == Skip::own_column;
  if (options.rescale && skip == Skip::input) scan_.skip_scale = std::sqrt(1 + 2 * std::exp(options.highway_bias));
  if (!causal) scan_.reverse_from = std::clamp<std::int64_t>(width / 2 - held_.begin, 0, held_.size());
  if (!options.state_in_gates) scan_.neighbours = token_neighbours(build);
}

ops::Scanned SruRecurrence::forward(OpContext& cx, const Tensor& u, const Tensor& x, const Tensor& mask,
                                    const MixerState* state) const {
  const Tensor skip = scan_.skip_in_u ? Tensor{} : take_channels(cx, x, held_);
  const Tensor first = state ? state->carried(0) : Tensor{};
  if (scan_.neighbours) return ops::scan(cx, scan_, u, skip, mask, first);
  const TokenRelay::Output out = relay_.run(
      cx, {u, skip, mask}, first.defined() ? std::vector{first} : std::vector<Tensor>{},
      [this](OpContext& part, std::vector<Tensor> in, const std::vector<Tensor>& before) {
        const ops::Scanned scanned = ops::scan(part, scan_, in[0], in[1], in[2], before.empty() ? Tensor{} : before[0]);
        return TokenRelay::Output{scanned.h, {scanned.final}};
      },
      [&](std::int64_t steps) { return ops::scan_costs(cx, scan_, u, steps); });
  return {out.y, out.last.empty() ? Tensor{} : out.last[0]};
}

}  // namespace weft
