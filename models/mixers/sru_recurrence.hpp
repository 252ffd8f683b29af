// What SRU and SRU++ share: the parameters of the recurrence and its call.
#pragma once
#include "core/ops/scan.hpp"
#include "models/mixers/sru.hpp"

namespace weft {

class SruRecurrence {
 public:
  /// `width` channels; x′ comes in u's fourth column, or beside it. Throws UserError when two directions do not divide the width.
  enum class Skip : std::uint8_t { input, own_column };
  SruRecurrence(const BuildContext& build, std::int64_t width, Skip skip, bool causal, const SruOptions& options);

  /// Columns of u in units of the width.
  std::int64_t columns() const { return scan_.skip_in_u ? 4 : 3; }
  /// u [B, T, columns·width], x [B, T, width] (read where x′ is the input); the state before stands in tensor 0 of `state`, if
  /// there is one.
  ops::Scanned forward(OpContext& cx, const Tensor& u, const Tensor& x, const Tensor& mask,
                       const MixerState* state) const;

 private:
  ops::ScanOptions scan_;
};

}  // namespace weft
