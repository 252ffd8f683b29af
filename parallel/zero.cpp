#include "parallel/zero.hpp"

namespace weft {

AxisSet summed_axes(const Slice& slice) {
  AxisSet axes;
  for (std::size_t axis = 0; axis < axis_count; ++axis)
    axes.set(axis, slice.placement[axis] == Placement::replicated_partial);
  return axes;
}

FlatCut cut_for(ZeroStage stage, std::size_t bucket_bytes, const Mesh& mesh) {
  FlatCut cut;
  cut.bucket_bytes = bucket_bytes;
  cut.at_units = stage == ZeroStage::parameters;
  cut.weight = [tp = mesh.size(Axis::tp)](const Slice& slice) {
    const bool sharded = slice.placement[static_cast<std::size_t>(Axis::tp)] == Placement::sharded;
    return (slice.global_shape.numel() + (sharded ? tp - 1 : 0)) / (sharded ? tp : 1);
  };
  if (stage == ZeroStage::none) return cut;
  cut.share = [&mesh](const Slice& slice) {
    const AxisSet axes = summed_axes(slice);
    FlatCut::Share share;
    for (std::size_t i = 0; i < axis_count; ++i) {
      if (!axes[i]) continue;
      const auto axis = static_cast<Axis>(i);
      share.ranks *= mesh.size(axis);
      share.rank = share.rank * mesh.size(axis) + mesh.coordinate(axis);
    }
    return share;
  };
  return cut;
}

void allocate_parameters(ExecContext& exec, ParameterStore& store, const Mesh& mesh, ZeroStage stage,
                         std::size_t bucket_bytes) {
  store.lay_out(cut_for(stage, bucket_bytes, mesh));
  store.allocate_values(exec, stage >= ZeroStage::parameters ? FlatExtent::kept : FlatExtent::whole);
  store.allocate_grads(exec, stage >= ZeroStage::gradients ? FlatExtent::kept : FlatExtent::whole);
}

}  // namespace weft
