// Learning-rate schedules.
#pragma once
#include <cstdint>
#include <string_view>

namespace weft {

struct Schedule {
  enum class Kind : std::uint8_t { constant, linear, cosine } kind = Kind::cosine;
  double peak = 1e-3;         ///< after warm-up
  double floor = 0;           ///< at the last step (linear and cosine)
  std::int64_t warmup = 0;    ///< steps of linear rise from peak/warmup to peak
  std::int64_t total = 1;     ///< steps of the whole run; from there on the rate stays at the floor

  /// Learning rate of step 1, 2, …
  double rate(std::int64_t step) const;
};

}  // namespace weft
