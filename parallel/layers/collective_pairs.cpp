#include "parallel/layers/collective_pairs.hpp"

#include "parallel/grad_buckets.hpp"

namespace weft {
namespace {

Keep keep_both(const Tensor& a, const Tensor& b) { return std::make_shared<const std::pair<Tensor, Tensor>>(a, b); }

Tensor as_rows(const Tensor& x) { return x.reshaped({x.view().rows(), x.view().cols()}).detached(); }

Cost moved(const Tensor& x) { return {0, static_cast<double>(x.view().bytes()), 1, 0}; }

/// All rows of the stream from each rank's.
Tensor gathered(ExecContext& exec, const TensorGroup& group, const StreamRows& rows, const Tensor& local) {
  const std::int64_t width = local.view().cols();
  Tensor all = Tensor::empty(exec.memory(), {rows.filled(), width}, local.dtype(), MemoryUse::activation);
  StreamTransfer transfer(group, rows);
  transfer.gather(as_rows(local), all);
  transfer.wait();
  return all.window(0, {rows.rows, width});
}

/// The sum over the ranks of [rows, D], in place where each rank keeps all of it and `partial` may be overwritten.
Tensor summed(ExecContext& exec, const TensorGroup& group, const StreamRows& rows, Tensor partial, bool overwrites) {
  const std::int64_t width = partial.view().cols();
  const auto make = [&](std::int64_t count) {
    return Tensor::empty(exec.memory(), {count, width}, partial.dtype(), MemoryUse::activation);
  };
  StreamTransfer transfer(group, rows);
  Tensor all = as_rows(partial), local;
  if (rows.shared() ? rows.filled() != rows.rows : !overwrites) {
    const Tensor copy = make(rows.filled());
    exec.kernels().elementwise.copy(exec, all.view(), copy.mut().slice(0, rows.rows));
    clear_filling(exec, rows, copy);
    all = copy;
  }
  if (rows.shared()) local = make(rows.local());
  for (std::int64_t i = 0; i < rows.chunks(); ++i) transfer.sum(i, all, local);
  transfer.wait();
  return rows.shared() ? local : all;
}

}  // namespace

StreamTransfer::~StreamTransfer() {
  for (Work& work : works_) drain(work);
}

void StreamTransfer::gather(const Tensor& local, const Tensor& all) {
  if (!rows_.shared()) return;
  for (std::int64_t i = 0; i < rows_.chunks(); ++i)
    works_.push_back(group_.comm().all_gather(local.view().slice(i * rows_.run, (i + 1) * rows_.run),
                                              all.mut().slice(i * rows_.chunk, (i + 1) * rows_.chunk),
                                              keep_both(local, all)));
}

void StreamTransfer::sum(std::int64_t i, const Tensor& all, const Tensor& local) {
  if (rows_.shared()) {
    const View chunk = all.view().slice(i * rows_.chunk, (i + 1) * rows_.chunk);
    const MutView part = local.mut().slice(i * rows_.run, (i + 1) * rows_.run);
    works_.push_back(group_.comm().reduce_scatter(chunk, part, {.keep = keep_both(all, local)}));
  } else {
    const Range part = rows_.part(i);
    works_.push_back(group_.comm().all_reduce(all.mut().slice(part.begin, part.end), {.keep = all.keep_alive()}));
  }
}

void StreamTransfer::wait(std::int64_t i) {
  if (i < static_cast<std::int64_t>(works_.size())) works_[static_cast<std::size_t>(i)].wait();
}

void StreamTransfer::wait() {
  for (Work& work : works_) work.wait();
}

void clear_filling(ExecContext& exec, const StreamRows& rows, const Tensor& all) {
  if (rows.filled() > rows.rows) exec.kernels().elementwise.fill(exec, 0.0f, all.mut().slice(rows.rows, rows.filled()));
}

Tensor gather_forward_sum_backward(OpContext& cx, const TensorGroup& group, const Tensor& x) {
  if (group.size() == 1) return x;
  const StreamRows rows = group.rows(cx);
  const Shape whole = TensorGroup::whole_shape(cx, x.view().cols());
  // A copy under a name of its own: its gradient is the ranks' sum, that of x may have other parts.
  Tensor y = rows.shared() ? gathered(cx.exec, group, rows, x).reshaped(whole) : x.detached();
  if (!cx.recording()) return y;
  cx.tape->record({rows.shared() ? "all_gather/reduce_scatter" : "copy/all_reduce", {&x}, {&y}, {}, moved(y), moved(y)},
                  [group, rows, shape = x.shape()](BackwardPass& pass) {
                    pass.give(0, summed(pass.exec(), group, rows, pass.grad(0), false).reshaped(shape));
                  });
  return y;
}

Tensor sum_forward_gather_backward(OpContext& cx, const TensorGroup& group, const Tensor& partial) {
  if (group.size() == 1) return partial;
  const StreamRows rows = group.rows(cx);
  Tensor y = summed(cx.exec, group, rows, partial, true).reshaped(group.stream_shape(cx, partial.view().cols()));
  if (!cx.recording()) return y;
  cx.tape->record(
      {rows.shared() ? "reduce_scatter/all_gather" : "all_reduce/copy", {&partial}, {&y}, {}, moved(y), moved(y)},
      [group, rows, shape = partial.shape()](BackwardPass& pass) {
        const Tensor& dy = pass.grad(0);
        pass.give(0, (rows.shared() ? gathered(pass.exec(), group, rows, dy) : dy).reshaped(shape));
      });
  return y;
}

}  // namespace weft
