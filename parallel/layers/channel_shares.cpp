#include "parallel/layers/channel_shares.hpp"

#include "parallel/layers/view_part.hpp"

namespace weft {

Tensor ChannelShares::buffer(ExecContext& exec, std::int64_t rows, DType dtype) const {
  return Tensor::empty(exec.memory(), {ranks, rows, largest()}, dtype, MemoryUse::activation);
}

MutView ChannelShares::share(const Tensor& buffer, int other) const {
  const MutView place = buffer.mut().slice(other, other + 1).reshaped({buffer.shape()[1], buffer.shape()[2]});
  return part_of(place, 1, {0, of(other).size()});
}

MutView ChannelShares::own(const Tensor& buffer) const { return share(buffer, rank); }

template <class AnyView>
AnyView ChannelShares::by_rank(const AnyView& all) const {
  AnyView view = all;
  view.shape = {ranks, all.shape[0], largest()};
  view.strides = {largest(), all.strides[0], all.strides[1]};
  return view;
}

void ChannelShares::join(ExecContext& exec, const Tensor& buffer, const MutView& all) const {
  const auto& copy = exec.kernels().elementwise.copy;
  if (even()) return copy(exec, buffer.view(), by_rank(all));
  for (int other = 0; other < ranks; ++other) copy(exec, share(buffer, other), part_of(all, 1, of(other)));
}

void ChannelShares::split(ExecContext& exec, const View& all, const Tensor& buffer) const {
  const auto& kernels = exec.kernels().elementwise;
  if (even()) return kernels.copy(exec, by_rank(all), buffer.mut());
  kernels.fill(exec, 0.0f, buffer.mut());
  for (int other = 0; other < ranks; ++other) kernels.copy(exec, part_of(all, 1, of(other)), share(buffer, other));
}

}  // namespace weft
