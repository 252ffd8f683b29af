// Which part of a logical tensor a rank holds: pure geometry, from which initial values, gradient sums, the global norm,
// checkpoints, import and export derive. Padding never appears in it.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/tensor/view.hpp"

namespace weft {

/// Mesh axes, outer to inner: pipeline, data, sequence, tensor parallel.
enum class Axis : std::uint8_t { pp, dp, sp, tp };
inline constexpr int axis_count = 4;

/// What the ranks along one mesh axis hold of a tensor.
enum class Placement : std::uint8_t {
  sharded,             ///< different elements
  replicated,          ///< the same elements, and the same gradient
  replicated_partial,  ///< the same elements; each holds a part of the gradient sum
};

/// A rectangular part of the logical tensor.
struct Box {
  Shape begin;
  Shape size;
  /// In a tensor sharded over tp, a box that several neighbouring tp ranks hold (key-value heads that are fewer than the
  /// ranks): how many, of which each holds a part of the gradient sum, and this rank's place among them.
  int copies = 1;
  int copy = 0;
};

struct Slice {
  /// The whole tensor on this rank: one box, its gradient summed over dp and sp.
  static Slice whole(Shape global_shape);

  Shape global_shape;      ///< logical, unpadded
  std::vector<Box> boxes;  ///< in local storage order
  /// [begin, end) of the flattened boxes that this rank keeps (ZeRO); all of them if empty.
  std::optional<std::array<std::int64_t, 2>> flat;
  std::array<Placement, axis_count> placement{Placement::replicated, Placement::replicated_partial,
                                              Placement::replicated_partial, Placement::replicated};

  /// Elements held here.
  std::int64_t numel() const;
  /// The shape of local storage: the box's if there is one, all rows of equal-width boxes, else flat.
  Shape local_shape() const;
  /// The boxes of what is kept, in local storage order: those of the slice, cut where its flat range begins and ends.
  std::vector<Box> kept_boxes() const;
  /// Calls `run(local, global, count)` for each maximal run of elements consecutive both in local storage and in the
  /// logical row-major tensor, in local order.
  void for_each_run(const std::function<void(std::int64_t local, std::int64_t global, std::int64_t count)>& run) const;
};

}  // namespace weft
