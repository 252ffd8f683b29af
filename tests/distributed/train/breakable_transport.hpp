// Ranks whose reductions can be broken on purpose, to show that a comparison would notice.
#pragma once
#include <memory>

#include "parallel/comm/communicator.hpp"

namespace weft::test {

enum class Break : std::uint8_t {
  nothing,
  skip_gradients,    ///< f32 sums are left as each rank's own
  scale_gradients,   ///< f32 sums come out twice as large
  skip_denominator,  ///< f64 sums of one element
  skip_loss,         ///< f64 sums of more
};

/// Works through `inner`, which must outlive it; every collective is done when it has started.
std::unique_ptr<Communicator> make_breakable(Communicator& inner, CommLog& log, Break what);

}  // namespace weft::test
