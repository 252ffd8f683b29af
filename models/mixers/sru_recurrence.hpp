// What SRU and SRU++ share: the parameters of the recurrence and its call.
#pragma once
#include "core/ops/scan.hpp"
#include "models/mixers/sru.hpp"
#include "parallel/layers/channels.hpp"
#include "parallel/layers/token_relay.hpp"

namespace weft {

class SruRecurrence {
 public:
  /// `width` channels, of which this rank holds its share; x′ comes in u's fourth column, or beside it. Throws UserError when
  /// two directions do not divide the width.
  enum class Skip : std::uint8_t { input, own_column };
  SruRecurrence(const BuildContext& build, std::int64_t width, Skip skip, bool causal, const SruOptions& options);

  /// Columns of u in units of the width.
  std::int64_t columns() const { return scan_.skip_in_u ? 4 : 3; }
  const Range& held() const { return held_; }
  /// A weight [columns·width, in] of which this rank has the rows of the channels held.
  Slice weight_slice(const BuildContext& build, std::int64_t in) const {
    return channel_slice(build, {columns() * width_, in}, width_);
  }
  /// u [B, T, columns·held], x [B, T, width] (read where x′ is the input), mask f32 [B, held]; the state before stands in
  /// tensor 0 of `state`, if there is one.
  ops::Scanned forward(OpContext& cx, const Tensor& u, const Tensor& x, const Tensor& mask,
                       const MixerState* state) const;

 private:
  std::int64_t width_;
  Range held_;
  ops::ScanOptions scan_;
  TokenRelay relay_;  ///< of states that stand in gates; others go by the scan's neighbours
};

}  // namespace weft
