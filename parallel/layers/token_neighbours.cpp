#include "parallel/layers/token_neighbours.hpp"

#include "core/kernels/table.hpp"

namespace weft {
namespace {

class TokenNeighbours final : public ops::SequenceNeighbours {
 public:
  explicit TokenNeighbours(Communicator& group) : group_(group) {}

  Tensor state_before(ExecContext& exec, const Tensor& summary) const override {
    return fold(exec, summary, 0, group_.rank());
  }
  Tensor state_gradient_after(ExecContext& exec, const Tensor& summary) const override {
    return fold(exec, summary, group_.size() - 1, group_.rank());
  }
  Tensor inputs_before(ExecContext& exec, const Tensor& last) const override { return pass(exec, last, 1); }
  Tensor inputs_gradient(ExecContext& exec, const Tensor& dbefore) const override { return pass(exec, dbefore, -1); }

 private:
  // The maps of the parts from `from` on, towards `to`, which is not among them.
  Tensor fold(ExecContext& exec, const Tensor& summary, int from, int to) const {
    const Shape& shape = summary.shape();
    const std::int64_t ranks = group_.size(), count = shape[1] * shape[2];
    const Tensor all = make(exec, {ranks, 2, count}, DType::f32);
    group_.all_gather(summary.view().reshaped({2 * count}), all.mut().reshaped({ranks * 2 * count}), keep(summary, all))
        .wait();
    Tensor state = make(exec, {shape[1], shape[2]}, DType::f32);
    exec.kernels().scan.carry(exec, all.view(), from, to, state.mut().reshaped({count}));
    return state;
  }

  // To the rank `step` further on; from the one before comes what is returned.
  Tensor pass(ExecContext& exec, const Tensor& given, int step) const {
    Tensor got = make(exec, given.shape(), given.dtype());
    const int to = group_.rank() + step, from = group_.rank() - step;
    const bool sends = 0 <= to && to < group_.size(), receives = 0 <= from && from < group_.size();
    if (!receives) exec.kernels().elementwise.fill(exec, 0.0f, got.mut());
    if (sends && receives)
      group_.send_recv(given.view(), to, got.mut(), from, 0, keep(given, got)).wait();
    else if (sends)
      group_.send(given.view(), to, 0, keep(given, got)).wait();
    else if (receives)
      group_.recv(got.mut(), from, 0, keep(given, got)).wait();
    return got;
  }

  static Tensor make(ExecContext& exec, Shape shape, DType dtype) {
    return Tensor::empty(exec.memory(), shape, dtype, MemoryUse::activation);
  }
  static Keep keep(const Tensor& a, const Tensor& b) { return std::make_shared<const std::pair<Tensor, Tensor>>(a, b); }

  Communicator& group_;
};

}  // namespace

std::shared_ptr<const ops::SequenceNeighbours> token_neighbours(const BuildContext& build) {
  Communicator& group = build.mesh.comm(Axis::sp);
  if (group.size() == 1) return nullptr;
  WEFT_CHECK(build.sharding.contiguous_tokens, "a recurrence over ranks wants contiguous tokens");
  return std::make_shared<TokenNeighbours>(group);
}

}  // namespace weft
