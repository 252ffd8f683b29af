#include "core/optim/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.hpp"

namespace weft {

double Schedule::rate(std::int64_t step) const {
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (kind == Kind::constant) return peak;
  const double span = static_cast<double>(std::max<std::int64_t>(1, total - warmup));
  const double part = std::clamp(static_cast<double>(step - warmup) / span, 0.0, 1.0);
  const double height = kind == Kind::linear ? 1.0 - part : 0.5 * (1.0 + std::cos(std::numbers::pi * part));
  return floor + (peak - floor) * height;
}

Schedule::Kind parse_schedule(std::string_view name) {
  if (name == "constant") return Schedule::Kind::constant;
  if (name == "linear") return Schedule::Kind::linear;
  if (name == "cosine") return Schedule::Kind::cosine;
  fail_user("--schedule: found \"{}\", expected constant, linear or cosine", name);
}

}  // namespace weft
