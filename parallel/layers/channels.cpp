#include "parallel/layers/channels.hpp"

#include "parallel/layers/channel_shares.hpp"
#include "parallel/layers/view_part.hpp"

namespace weft {
namespace {

Tensor make(ExecContext& exec, Shape shape, DType dtype) {
  return Tensor::empty(exec.memory(), shape, dtype, MemoryUse::activation);
}

Tensor as_rows(const Tensor& x) { return x.reshaped({x.view().rows(), x.view().cols()}).detached(); }

/// `x` [rows, columns] at the front of [rows of `shape`, columns of it], zeros elsewhere; x itself where it fills that.
Tensor filled_up(ExecContext& exec, const Tensor& x, Shape shape) {
  if (x.shape() == shape) return x;
  const Tensor y = make(exec, shape, x.dtype());
  exec.kernels().elementwise.fill(exec, 0.0f, y.mut());
  exec.kernels().elementwise.copy(exec, x.view(), part_of(y.mut().slice(0, x.shape()[0]), 1, {0, x.shape()[1]}));
  return y;
}

Tensor taken(ExecContext& exec, const Tensor& x, const Range& held) {
  Shape shape = x.shape();
  shape[-1] = held.size();
  Tensor y = make(exec, shape, x.dtype());
  exec.kernels().elementwise.copy(exec, part_of(x.view(), shape.rank() - 1, held), y.mut());
  return y;
}

Cost moved(const Tensor& x) { return {0, 2 * static_cast<double>(x.view().bytes()), 1, 0}; }

/// Each rank's columns of all rows against all columns of the stream's rows here.
struct ChannelExchange {
  TensorGroup group;
  StreamRows rows;
  ChannelShares shares;

  /// [chunks, ranks, run, columns], as rows lie in the stream, as [ranks, chunks, run, columns].
  MutView by_rank(const Tensor& all) const {
    MutView view = all.mut().reshaped({rows.chunks(), group.size(), rows.run, all.shape()[1]});
    std::swap(view.shape[0], view.shape[1]);
    std::swap(view.strides[0], view.strides[1]);
    return view;
  }
  Shape by_rank_shape() const { return {group.size(), rows.chunks(), rows.run, shares.largest()}; }
  static Keep keep(const Tensor& a, const Tensor& b) { return std::make_shared<const std::pair<Tensor, Tensor>>(a, b); }

  Tensor swap(ExecContext& exec, const Tensor& out) const {
    const Tensor in = make(exec, out.shape(), out.dtype());
    group.comm().all_to_all(out.view(), in.mut(), keep(out, in)).wait();
    return in;
  }
  Tensor gather(ExecContext& exec, const Tensor& own) const {
    const Tensor all = shares.buffer(exec, rows.rows, own.dtype());
    const std::int64_t count = own.numel();
    const MutView to = all.mut().reshaped({group.size() * count});
    group.comm().all_gather(own.view().reshaped({count}), to, keep(own, all)).wait();
    return all;
  }

  Tensor forward(ExecContext& exec, const Tensor& h) const {
    const Tensor own = filled_up(exec, as_rows(h), {rows.filled(), shares.largest()});
    Tensor all;
    if (rows.shared()) {
      const Tensor out = shares.buffer(exec, rows.local(), h.dtype());
      exec.kernels().elementwise.copy(exec, by_rank(own), out.mut().reshaped(by_rank_shape()));
      all = swap(exec, out);
    } else {
      all = gather(exec, own);
    }
    Tensor y = make(exec, {rows.local(), shares.width}, h.dtype());
    shares.join(exec, all, y.mut());
    return y;
  }

  /// The gradient of this rank's columns, all rows.
  Tensor backward(ExecContext& exec, const Tensor& dstream) const {
    if (!rows.shared()) return taken(exec, dstream, shares.held());
    const Tensor out = shares.buffer(exec, rows.local(), dstream.dtype());
    shares.split(exec, dstream.view(), out);
    const Tensor in = swap(exec, out), all = make(exec, {rows.filled(), shares.largest()}, dstream.dtype());
    exec.kernels().elementwise.copy(exec, in.view().reshaped(by_rank_shape()), by_rank(all));
    const Tensor own = all.slice(0, rows.rows);
    return shares.held().size() == shares.largest() ? own : taken(exec, own, {0, shares.held().size()});
  }
};

}  // namespace

Range held_channels(const BuildContext& build, std::int64_t width) {
  const int ranks = build.mesh.size(Axis::tp);
  if (ranks > width) fail_user("--tp: found {}; {} channels go over that many ranks or fewer", ranks, width);
  return share_of(width, ranks, build.mesh.coordinate(Axis::tp));
}

std::vector<WeightRows> channel_rows(const Range& held, std::int64_t parts, std::int64_t width) {
  std::vector<WeightRows> rows;
  for (std::int64_t part = 0; part < parts; ++part)
    rows.push_back({{part * width + held.begin, part * width + held.end}});
  return rows;
}

Slice channel_slice(const BuildContext& build, Shape shape, std::int64_t width) {
  Slice slice = Slice::whole(shape);
  if (build.mesh.size(Axis::tp) == 1) return slice;
  slice.placement[static_cast<std::size_t>(Axis::tp)] = Placement::sharded;
  const Box all = slice.boxes.front();
  slice.boxes.clear();
  for (const WeightRows& part : channel_rows(held_channels(build, width), shape[0] / width, width)) {
    Box box = all;
    box.begin[0] = part.rows.begin;
    box.size[0] = part.rows.size();
    slice.boxes.push_back(box);
  }
  return slice;
}

Slice summed_slice(const BuildContext& build, Shape shape) {
  Slice slice = Slice::whole(shape);
  if (build.mesh.size(Axis::tp) > 1)
    slice.placement[static_cast<std::size_t>(Axis::tp)] = Placement::replicated_partial;
  return slice;
}

Tensor take_channels(OpContext& cx, const Tensor& x, const Range& held) {
  const std::int64_t width = x.shape()[-1];
  if (held.size() == width) return x;
  Tensor y = taken(cx.exec, x, held);
  if (!cx.recording()) return y;
  cx.tape->record({"take_channels", {&x}, {&y}, {}, moved(y), moved(x)}, [held, shape = x.shape()](BackwardPass& pass) {
    const Tensor& dy = pass.grad(0);
    Tensor dx = make(pass.exec(), shape, dy.dtype());
    pass.exec().kernels().elementwise.fill(pass.exec(), 0.0f, dx.mut());
    pass.exec().kernels().elementwise.copy(pass.exec(), dy.view(), part_of(dx.mut(), shape.rank() - 1, held));
    pass.give(0, std::move(dx));
  });
  return y;
}

Tensor join_columns(OpContext& cx, const Tensor& a, const Tensor& b) {
  const std::int64_t left = a.shape()[-1];
  Shape shape = a.shape();
  shape[-1] = left + b.shape()[-1];
  const Range of_a{0, left}, of_b{left, shape[-1]};
  Tensor y = make(cx.exec, shape, a.dtype());
  const ElementwiseKernels& kernels = cx.kernels().elementwise;
  kernels.copy(cx.exec, a.view(), part_of(y.mut(), shape.rank() - 1, of_a));
  kernels.copy(cx.exec, b.view(), part_of(y.mut(), shape.rank() - 1, of_b));
  if (!cx.recording()) return y;
  cx.tape->record({"join_columns", {&a, &b}, {&y}, {}, moved(y), moved(y)}, [=](BackwardPass& pass) {
    pass.give(0, taken(pass.exec(), pass.grad(0), of_a));
    pass.give(1, taken(pass.exec(), pass.grad(0), of_b));
  });
  return y;
}

Tensor channels_to_stream(OpContext& cx, const TensorGroup& group, const Tensor& h, std::int64_t width) {
  if (group.size() == 1) return h;
  const ChannelExchange exchange{group, group.rows(cx), {width, group.size(), group.rank()}};
  WEFT_CHECK(h.view().rows() == exchange.rows.rows && h.view().cols() == exchange.shares.held().size(),
             "{} as one rank's of {} channels", to_string(h.shape()), width);
  Tensor y = exchange.forward(cx.exec, h).reshaped(group.stream_shape(cx, width));
  if (!cx.recording()) return y;
  cx.tape->record(
      {exchange.rows.shared() ? "all_to_all/all_to_all" : "all_gather/take", {&h}, {&y}, {}, moved(y), moved(h)},
      [exchange, shape = h.shape()](BackwardPass& pass) {
        pass.give(0, exchange.backward(pass.exec(), as_rows(pass.grad(0))).reshaped(shape));
      });
  return y;
}

}  // namespace weft
