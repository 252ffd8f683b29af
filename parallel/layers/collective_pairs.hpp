// Differentiable collectives over the tensor-parallel ranks, named by what they do forward and backward: the conjugate pairs
// of Shoeybi et al. 2019 (f, g) and, where the residual stream is shared out, of Korthikanti et al. 2022 (g, ḡ). Which of
// the two it is follows from the context. In a group of one all of them return what they are given.
#pragma once
#include "parallel/layers/tensor_group.hpp"

namespace weft {

/// Gives every rank all rows of the stream [B, T, D]: copy, and sum of the gradients backward; or all-gather, and
/// reduce-scatter backward.
Tensor gather_forward_sum_backward(OpContext& cx, const TensorGroup& group, const Tensor& x);

/// Sums the ranks' partial [B, T, D] into the stream: all-reduce, and copy backward; or reduce-scatter, and all-gather
/// backward.
Tensor sum_forward_gather_backward(OpContext& cx, const TensorGroup& group, const Tensor& partial);

/// The collectives under the pairs, chunk by chunk and without a tape, for layers that overlap them with their products.
/// Shared: [filled, D] holds all rows, [local, D] this rank's. Whole: both are [rows, D], and nothing is gathered.
class StreamTransfer {
 public:
  StreamTransfer(const TensorGroup& group, const StreamRows& rows) : group_(group), rows_(rows) {}
  ~StreamTransfer();
  StreamTransfer(const StreamTransfer&) = delete;
  StreamTransfer& operator=(const StreamTransfer&) = delete;

  /// Starts gathering every chunk of `local` into `all`.
  void gather(const Tensor& local, const Tensor& all);
  /// Starts the sum of chunk i over the ranks: whole, in place in `all`; shared, from `all` into `local`.
  void sum(std::int64_t i, const Tensor& all, const Tensor& local);
  /// Waits for chunk i's collective, or for all.
  void wait(std::int64_t i);
  void wait();

 private:
  const TensorGroup& group_;
  StreamRows rows_;
  std::vector<Work> works_;
};

/// Zeros to the rows of [filled, D] that are only there to fill.
void clear_filling(ExecContext& exec, const StreamRows& rows, const Tensor& all);

}  // namespace weft
