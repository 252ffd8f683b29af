#include "parallel/mesh.hpp"

#include <string>

namespace weft {
namespace {

constexpr std::array<std::string_view, axis_count> names = {"pp", "dp", "sp", "tp"};

std::string sizes_text(const std::array<int, axis_count>& sizes) {
  std::string text;
  for (int axis = 0; axis < axis_count; ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    if (sizes[i] != 1) text += fmt::format("{}--{} {}", text.empty() ? "" : " ", names[i], sizes[i]);
  }
  return text.empty() ? "--dp 1" : text;
}

/// Meshes of that many ranks near to what was asked for.
std::string fitting(std::array<int, axis_count> sizes, int ranks) {
  constexpr auto dp = static_cast<std::size_t>(Axis::dp);
  std::string text;
  const auto offer = [&](const std::array<int, axis_count>& mesh) {
    const std::string one = sizes_text(mesh);
    if (("; " + text + "; ").find("; " + one + "; ") != std::string::npos) return;
    text += (text.empty() ? "" : "; ") + one;
  };
  // Each axis alone given up, then all, with dp taking what is left.
  for (std::size_t changed = 0; changed < axis_count; ++changed) {
    auto mesh = sizes;
    mesh[changed] = 1;
    mesh[dp] = 1;
    std::int64_t others = 1;
    for (const int size : mesh) others *= size;
    if (ranks % others != 0) continue;
    mesh[dp] = static_cast<int>(ranks / others);
    offer(mesh);
    if (changed != dp) {
      mesh[changed] = std::exchange(mesh[dp], 1);
      offer(mesh);
    }
  }
  offer({1, ranks, 1, 1});
  return text;
}

}  // namespace

std::string_view name_of(Axis axis) { return names[static_cast<std::size_t>(axis)]; }

Mesh::Mesh(Communicator& world, CommLog& log, MeshSizes sizes)
    : Mesh(world, sizes, [&](const MeshGroup& group) {
        if (group.size > 1) return world.split(group.color, world.rank(), group.name, group.priority);
        return make_self_communicator(log, group.name, world.members()[static_cast<std::size_t>(world.rank())],
                                      world.device());
      }) {}

Mesh::Mesh(Communicator& world, MeshSizes sizes, const MakeGroup& make)
    : world_(world), sizes_{sizes.pp, sizes.dp, sizes.sp, sizes.tp} {
  constexpr auto dp = static_cast<std::size_t>(Axis::dp);
  std::int64_t others = 1;
  for (std::size_t axis = 0; axis < axis_count; ++axis) {
    const int least = axis == dp ? 0 : 1;
    if (sizes_[axis] < least) fail_user("--{} {}: expected {} or more", names[axis], sizes_[axis], least);
    if (sizes_[axis] > world.size())
      fail_user("--{} {}: there are {} ranks; meshes that fit: {}", names[axis], sizes_[axis], world.size(),
                fitting({1, 1, 1, 1}, world.size()));
    if (axis != dp) others *= sizes_[axis];
  }
  if (sizes_[dp] == 0) {
    if (world.size() % others != 0) {
      auto asked = sizes_;
      asked[dp] = 1;
      fail_user("{} takes a multiple of {} ranks, and there are {}; meshes that fit: {}", sizes_text(asked), others,
                world.size(), fitting(asked, world.size()));
    }
    sizes_[dp] = static_cast<int>(world.size() / others);
  }
  if (others * sizes_[dp] != world.size())
    fail_user("{} takes {} ranks, and there are {}; meshes that fit: {}", sizes_text(sizes_), others * sizes_[dp],
              world.size(), fitting(sizes_, world.size()));

  int rest = world.rank();
  for (std::size_t axis = axis_count; axis-- > 0;) {
    coordinates_[axis] = rest % sizes_[axis];
    rest /= sizes_[axis];
  }
  for (std::size_t mask = 0; mask < groups_.size(); ++mask) {
    MeshGroup group;
    for (std::size_t axis = 0; axis < axis_count; ++axis) {
      if (mask >> axis & 1) {
        group.name += (group.name.empty() ? "" : "+") + std::string(names[axis]);
        group.size *= sizes_[axis];
        group.rank = group.rank * sizes_[axis] + coordinates_[axis];
      } else {
        group.color = group.color * sizes_[axis] + coordinates_[axis];
      }
    }
    // Gradients travel along dp while backward computes; what waits on the other axes comes first.
    group.priority = mask >> dp & 1 ? Priority::bulk : Priority::urgent;
    if (group.name.empty()) group.name = "self";
    groups_[mask] = make(group);
  }
}

int Mesh::size(std::initializer_list<Axis> axes) const {
  int product = 1;
  for (const Axis axis : axes) product *= size(axis);
  return product;
}

Communicator& Mesh::comm(std::initializer_list<Axis> axes) {
  AxisSet set;
  for (const Axis axis : axes) set.set(static_cast<std::size_t>(axis));
  return comm(set);
}

}  // namespace weft
