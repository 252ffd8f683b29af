// Attention by head exchange (Jacobs et al. 2023, "DeepSpeed Ulysses"): tokens of all heads become all tokens of some heads.
#include <algorithm>

#include "parallel/grad_buckets.hpp"
#include "parallel/layers/sequence_attention.hpp"
#include "parallel/layers/view_part.hpp"

namespace weft {
namespace {

/// Columns of a projection with some of its heads: queries, keys, values.
struct HeadColumns {
  Range q, k, v;
  std::int64_t width() const { return q.size() + k.size() + v.size(); }
};

struct Exchange {
  Communicator* group;
  ops::HeadLayout layout;
  std::int64_t batch, seq;
  DType dtype;

  int ranks() const { return group->size(); }
  HeadShare heads_of(int rank) const { return share_heads(layout.heads, layout.kv_heads, ranks(), rank); }
  Range tokens_of(int rank) const { return share_of(seq, ranks(), rank); }
  /// The heads that a rank has after the exchange.
  ops::HeadLayout layout_of(int rank) const {
    const HeadShare share = heads_of(rank);
    return {share.heads.size(), share.kv_heads.size(), layout.head_dim, layout.head_begin + share.heads.begin,
            layout.heads_global > 0 ? layout.heads_global : layout.heads};
  }
  /// Where a rank's heads stand in a row of all heads.
  HeadColumns columns_of(int rank) const {
    const HeadShare share = heads_of(rank);
    const std::int64_t hd = layout.head_dim, keys = layout.heads * hd, values = keys + layout.kv_heads * hd;
    const Range kv{share.kv_heads.begin * hd, share.kv_heads.end * hd};
    return {{share.heads.begin * hd, share.heads.end * hd},
            {keys + kv.begin, keys + kv.end},
            {values + kv.begin, values + kv.end}};
  }
  std::int64_t most_tokens() const { return (seq + ranks() - 1) / ranks(); }

  Tensor make(ExecContext& exec, Shape shape, DType type) const {
    return Tensor::empty(exec.memory(), shape, type, MemoryUse::activation);
  }
  /// One rank's [B, tokens, width] in a buffer [ranks, B, most tokens, most width].
  static MutView place(const Tensor& buffer, int rank, std::int64_t tokens, std::int64_t width) {
    const MutView all = buffer.slice(rank, rank + 1).mut();
    const MutView own = all.reshaped({all.shape[1], all.shape[2], all.shape[3]});
    return part_of(part_of(own, 1, {0, tokens}), 2, {0, width});
  }
  /// Sends part r of a buffer to rank r; returns what came.
  Tensor swap(ExecContext& exec, const Tensor& out) const {
    const Tensor in = make(exec, out.shape(), out.dtype());
    const Keep keep = std::make_shared<const std::pair<Tensor, Tensor>>(out, in);
    Work work = group->all_to_all(out.view(), in.mut(), keep);
    work.wait();
    return in;
  }

  /// x [B, own tokens, ..]: `pick(rank)` are the columns that go to a rank. → [B, all tokens, own picks].
  template <class Pick>
  Tensor tokens_together(ExecContext& exec, const Tensor& x, Pick&& pick) const {
    const auto& copy = exec.kernels().elementwise.copy;
    const auto width_of = [&](int rank) {
      std::int64_t width = 0;
      for (const Range& columns : pick(rank)) width += columns.size();
      return width;
    };
    std::int64_t widest = 0;
    for (int rank = 0; rank < ranks(); ++rank) widest = std::max(widest, width_of(rank));
    const Tensor out = make(exec, {ranks(), batch, most_tokens(), widest}, dtype);
    for (int rank = 0; rank < ranks(); ++rank) {
      const MutView to = place(out, rank, x.shape()[1], width_of(rank));
      std::int64_t at = 0;
      for (const Range& columns : pick(rank)) {
        copy(exec, part_of(x.mut(), 2, columns), part_of(to, 2, {at, at + columns.size()}));
        at += columns.size();
      }
    }
    const Tensor in = swap(exec, out);
    const std::int64_t width = width_of(group->rank());
    Tensor all = make(exec, {batch, seq, width}, dtype);
    for (int rank = 0; rank < ranks(); ++rank)
      copy(exec, place(in, rank, tokens_of(rank).size(), width), part_of(all.mut(), 1, tokens_of(rank)));
    return all;
  }

  /// The way back: x [B, all tokens, width] of this rank's heads → `take(rank, part)` for each rank's part [B, own tokens,
  /// width_of(rank)].
  template <class Width, class Take>
  void heads_together(ExecContext& exec, const Tensor& x, Width&& width_of, Take&& take) const {
    std::int64_t widest = 0;
    for (int rank = 0; rank < ranks(); ++rank) widest = std::max(widest, width_of(rank));
    const Tensor out = make(exec, {ranks(), batch, most_tokens(), widest}, dtype);
    for (int rank = 0; rank < ranks(); ++rank)
      exec.kernels().elementwise.copy(exec, part_of(x.mut(), 1, tokens_of(rank)),
                                      place(out, rank, tokens_of(rank).size(), x.shape()[2]));
    const Tensor in = swap(exec, out);
    const std::int64_t tokens = tokens_of(group->rank()).size();
    for (int rank = 0; rank < ranks(); ++rank) take(rank, place(in, rank, tokens, width_of(rank)));
  }
};

struct ExchangeBackward {
  Exchange exchange;
  AttentionSpec spec;
  Tensor qkv, out, lse;  ///< all tokens of this rank's heads
  std::int64_t tokens;

  void operator()(BackwardPass& pass) const {
    ExecContext& exec = pass.exec();
    const auto& elementwise = exec.kernels().elementwise;
    const ops::HeadLayout own = exchange.layout_of(exchange.group->rank());
    const Tensor dout =
        exchange.tokens_together(exec, pass.grad(0), [&](int rank) { return std::array{exchange.columns_of(rank).q}; });
    const Tensor dqkv = pass.empty_like(qkv);
    const ops::Heads<MutView> in = ops::split_heads(qkv, own), grad = ops::split_heads(dqkv, own);
    exec.kernels().attention.backward(exec, in.q, in.k, in.v, out.view(), lse.view(), dout.view().reshaped(out.shape()),
                                      spec, grad.q, grad.k, grad.v);
    // Key-value heads that several ranks worked with get their sum.
    const bool sums = exchange.heads_of(0).copies > 1;
    const Shape shape{exchange.batch, tokens, exchange.layout.width()};
    Tensor dx = exchange.make(exec, shape, sums ? DType::f32 : exchange.dtype);
    if (sums) elementwise.fill(exec, 0.0f, dx.mut());
    exchange.heads_together(
        exec, dqkv, [&](int rank) { return exchange.columns_of(rank).width(); },
        [&](int rank, const MutView& part) {
          const HeadColumns to = exchange.columns_of(rank);
          std::int64_t at = 0;
          for (const Range& columns : {to.q, to.k, to.v}) {
            const MutView from = part_of(part, 2, {at, at + columns.size()}), into = part_of(dx.mut(), 2, columns);
            sums ? elementwise.accumulate(exec, from, into) : elementwise.copy(exec, from, into);
            at += columns.size();
          }
        });
    if (dx.dtype() != exchange.dtype) {
      const Tensor narrow = exchange.make(exec, shape, exchange.dtype);
      elementwise.copy(exec, dx.view(), narrow.mut());
      dx = narrow;
    }
    pass.give(0, std::move(dx));
  }
};

}  // namespace

Tensor exchange_attention(OpContext& cx, Communicator& group, const Tensor& qkv, const ops::HeadLayout& layout,
                          const ops::AttentionOptions& options) {
  const std::int64_t b = qkv.shape()[0], t = qkv.shape()[1], seq = cx.tokens.seq_global;
  const Exchange exchange{&group, layout, b, seq, qkv.dtype()};
  const ops::HeadLayout own = exchange.layout_of(group.rank());
  const Tensor all = exchange.tokens_together(cx.exec, qkv, [&](int rank) {
    const HeadColumns columns = exchange.columns_of(rank);
    return std::array{columns.q, columns.k, columns.v};
  });
  AttentionSpec spec = ops::attention_spec(cx, own, options);
  spec.q_begin = spec.k_begin = 0;
  const ops::Heads<MutView> heads = ops::split_heads(all, own);
  const Tensor out = cx.empty({b, seq, own.heads, own.head_dim}, qkv.dtype());
  Tensor lse;
  if (cx.recording()) lse = cx.empty({b, own.heads, seq}, DType::f32);
  cx.kernels().attention.forward(cx.exec, heads.q, heads.k, heads.v, spec, out.mut(), lse.mut());
  Tensor y = cx.empty({b, t, layout.heads * layout.head_dim}, qkv.dtype());
  exchange.heads_together(
      cx.exec, out.reshaped({b, seq, own.heads * own.head_dim}),
      [&](int rank) { return exchange.columns_of(rank).q.size(); },
      [&](int rank, const MutView& part) {
        cx.kernels().elementwise.copy(cx.exec, part, part_of(y.mut(), 2, exchange.columns_of(rank).q));
      });
  if (!cx.recording()) return y;
  const double length = static_cast<double>(seq);
  const double pairs = options.causal ? length * (length + 1) / 2 : length * length;
  const auto [forward, backward] = ops::attention_costs(pairs * static_cast<double>(b * own.heads), own.head_dim,
                                                        static_cast<double>(all.view().bytes() + out.view().bytes()));
  cx.tape->record({"exchange_attention", {&qkv}, {&y}, {}, forward, backward},
                  ExchangeBackward{exchange, spec, all, out, lse, t});
  return y;
}

}  // namespace weft
