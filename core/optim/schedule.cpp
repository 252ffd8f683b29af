#include "core/optim/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace weft {

double Schedule::rate(std::int64_t step) const {
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (kind == Kind::constant) return peak;
  const double span = static_cast<double>(std::max<std::int64_t>(1, total - warmup));
  const double part = std::clamp(static_cast<double>(step - warmup) / span, 0.0, 1.0);
  const double height = kind == Kind::linear ? 1.0 - part : 0.5 * (1.0 + std::cos(std::numbers::pi * part));
  return floor + (peak - floor) * height;
}

}  // namespace weft
