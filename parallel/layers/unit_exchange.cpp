#include "parallel/layers/unit_exchange.hpp"

#include "parallel/layers/channel_shares.hpp"
#include "parallel/layers/view_part.hpp"

namespace weft {
namespace {

class TensorUnits final : public ops::UnitExchange {
 public:
  TensorUnits(Communicator& group, std::int64_t hidden) : group_(group), shares_{hidden, group.size(), group.rank()} {}

  void gather(ExecContext& exec, View own, MutView all) const override {
    const std::int64_t rows = own.shape[0], count = rows * shares_.largest();
    const Tensor buffer = shares_.buffer(exec, rows, all.dtype);
    exec.kernels().elementwise.copy(exec, own, shares_.own(buffer));
    const MutView to = buffer.mut().reshaped({group_.size() * count});
    group_.all_gather(to.slice(group_.rank() * count, (group_.rank() + 1) * count), to, buffer.keep_alive()).wait();
    shares_.join(exec, buffer, all);
  }

  void sum(ExecContext& exec, View partial, MutView own) const override {
    const std::int64_t rows = partial.shape[0], count = rows * shares_.largest();
    const Tensor buffer = shares_.buffer(exec, rows, DType::f32);
    shares_.split(exec, partial, buffer);
    const MutView from = buffer.mut().reshaped({group_.size() * count});
    if (shares_.even()) return group_.reduce_scatter(from, own.reshaped({count}), {.keep = buffer.keep_alive()}).wait();
    // In place: this rank's part of the buffer takes the sum.
    const MutView to = from.slice(group_.rank() * count, (group_.rank() + 1) * count);
    group_.reduce_scatter(from, to, {.keep = buffer.keep_alive()}).wait();
    exec.kernels().elementwise.copy(exec, shares_.own(buffer), own);
  }

 private:
  Communicator& group_;
  ChannelShares shares_;
};

}  // namespace

std::shared_ptr<const ops::UnitExchange> unit_exchange(const BuildContext& build, std::int64_t hidden) {
  Communicator& group = build.mesh.comm(Axis::tp);
  if (group.size() == 1) return nullptr;
  return std::make_shared<TensorUnits>(group, hidden);
}

}  // namespace weft
