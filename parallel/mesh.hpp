// Ranks laid out on named axes, outer to inner: pp (pipeline), dp (data), sp (sequence), tp (tensor). Neighbours on tp
// are neighbours in the world, and so share a host where they can.
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>

#include "core/tensor/slice.hpp"
#include "parallel/comm/communicator.hpp"

namespace weft {

std::string_view name_of(Axis axis);

/// Ranks along each axis. dp = 0 stands for what the other axes leave.
struct MeshSizes {
  int pp = 1;
  int dp = 0;
  int sp = 1;
  int tp = 1;
};

/// Axes by their numbers.
using AxisSet = std::bitset<axis_count>;

/// A group that the mesh makes: its size, this rank's place in it, and what Communicator::split takes.
struct MeshGroup {
  int size = 1;
  int rank = 0;
  int color = 0;
  std::string name;
  Priority priority = Priority::urgent;
};

class Mesh {
 public:
  using MakeGroup = std::function<std::unique_ptr<Communicator>(const MeshGroup&)>;
  /// Collective over `world`, which must outlive the mesh: makes all groups in one order on all ranks. Throws UserError
  /// with meshes that fit when the product of sizes is not the number of ranks.
  Mesh(Communicator& world, CommLog& log, MeshSizes sizes);
  /// The same with groups of another make, for ranks that are not there.
  Mesh(Communicator& world, MeshSizes sizes, const MakeGroup& make);

  int size(Axis axis) const { return sizes_[static_cast<std::size_t>(axis)]; }
  int size(std::initializer_list<Axis> axes) const;
  /// This rank's place along the axis.
  int coordinate(Axis axis) const { return coordinates_[static_cast<std::size_t>(axis)]; }
  /// The ranks that differ from this one along the axis alone, ordered by coordinate.
  Communicator& comm(Axis axis) { return comm({axis}); }
  /// The ranks that differ along these axes alone, in world order (outer axis slowest, whatever the order of `axes`).
  Communicator& comm(std::initializer_list<Axis> axes);
  Communicator& comm(AxisSet axes) { return *groups_[axes.to_ulong()]; }
  Communicator& world() { return world_; }

 private:
  Communicator& world_;
  std::array<int, axis_count> sizes_{};
  std::array<int, axis_count> coordinates_{};
  std::array<std::unique_ptr<Communicator>, 1 << axis_count> groups_;
};

}  // namespace weft
