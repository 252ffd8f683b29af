// Ring attention (Liu et al. 2023). At step s a rank works with the block of keys and values of the rank s places before it.
// Under the zigzag order all ranks have the same work at each step, in one call without a mask but for their own block's.
// Backward, the sums of a block's gradients begin at the rank after its owner and end at the owner, who works on one part of its
// own block while the first block comes, and on the other while the sums come home.
#include <algorithm>
#include <limits>
#include <vector>

#include "parallel/grad_buckets.hpp"
#include "parallel/layers/sequence_attention.hpp"
#include "parallel/layers/view_part.hpp"

namespace weft {
namespace {

constexpr int values_tag = 0, gradients_tag = 1;

/// Queries against keys, as local token ranges of their ranks, and what the kernel is told of them.
struct Piece {
  Range q, k;
  std::int64_t q_begin, k_begin;
  bool causal;
};

/// An interval: local tokens, and the global position of the first.
struct Interval {
  Range local;
  std::int64_t begin;
};

std::vector<Interval> intervals_of(const TokenMap& tokens) {
  std::vector<Interval> intervals;
  std::int64_t at = 0;
  for (const Range& global : token_intervals(tokens)) {
    intervals.push_back({{at, at + global.size()}, global.begin});
    at += global.size();
  }
  return intervals;
}

// Dropout's bits need the positions of each interval; without it, pieces of one block that need no mask go as one.
std::vector<Piece> pieces_of(const TokenMap& own, const TokenMap& other, bool causal, bool dropout) {
  const bool same = own.begin == other.begin && own.seq_local == other.seq_local;
  const Range all_q{0, own.seq_local}, all_k{0, other.seq_local};
  if (!dropout && (!causal || same)) return {{all_q, all_k, 0, 0, causal}};
  std::vector<Piece> pieces;
  for (const Interval& q : intervals_of(own))
    for (const Interval& k : intervals_of(other)) {
      if (causal && k.begin >= q.begin + q.local.size()) continue;
      const bool masked = causal && k.begin + k.local.size() > q.begin + 1;
      Piece* before = pieces.empty() ? nullptr : &pieces.back();
      if (!dropout && !masked && before && !before->causal && before->q.begin == q.local.begin &&
          before->k.end == k.local.begin)
        before->k.end = k.local.end;
      else
        pieces.push_back({q.local, k.local, q.begin, k.begin, masked});
    }
  if (!dropout && pieces.size() == 2 && !pieces[0].causal && !pieces[1].causal &&
      pieces[0].k.begin == pieces[1].k.begin && pieces[0].k.end == pieces[1].k.end &&
      pieces[0].q.end == pieces[1].q.begin) {
    pieces[0].q.end = pieces[1].q.end;
    pieces.pop_back();
  }
  return pieces;
}

/// What of `pieces` has keys in these rows.
std::vector<Piece> within(const std::vector<Piece>& pieces, Range keys) {
  std::vector<Piece> result;
  for (Piece piece : pieces) {
    const Range k{std::max(piece.k.begin, keys.begin), std::min(piece.k.end, keys.end)};
    if (k.begin >= k.end) continue;
    piece.k_begin += k.begin - piece.k.begin;
    piece.k = k;
    result.push_back(piece);
  }
  return result;
}

/// What both directions know.
struct Ring {
  Communicator* group;
  ops::HeadLayout layout;
  ops::AttentionOptions options;
  TokenOrder order;
  AttentionSpec spec;
  TokenMap tokens;
  std::int64_t batch;
  DType dtype;

  int ranks() const { return group->size(); }
  int next() const { return (group->rank() + 1) % ranks(); }
  int previous() const { return (group->rank() + ranks() - 1) % ranks(); }
  int owner(int step) const { return (group->rank() - step + ranks()) % ranks(); }
  TokenMap tokens_of(int rank) const { return share_tokens(tokens.seq_global, order, ranks(), rank); }
  std::int64_t kv_width() const { return 2 * layout.kv_heads * layout.head_dim; }
  Range kv_columns() const { return {layout.heads * layout.head_dim, layout.width()}; }
  std::vector<Piece> pieces(int rank) const {
    return pieces_of(tokens, tokens_of(rank), options.causal, spec.dropout.p > 0);
  }
  /// Of the own block, those at even places as much work as those at odd ones, where they are several.
  std::vector<Piece> own_pieces() const {
    const std::vector<Piece> whole = pieces(group->rank());
    const std::int64_t half = tokens.seq_local / 2;
    if (whole.size() != 1 || half == 0) return whole;
    const auto [q, k, q_begin, k_begin, causal] = whole.front();
    const Range front{0, half}, back{half, tokens.seq_local};
    if (!causal) return {{front, k, q_begin, k_begin, false}, {back, k, q_begin + half, k_begin, false}};
    return {{front, front, q_begin, k_begin, true},
            {back, front, q_begin + half, k_begin, false},
            {back, back, q_begin + half, k_begin + half, true}};
  }
  /// Rows of a rank's block that the sums of its gradients travel in, in turn. The one hop of two ranks is long beside half of
  /// the own block, so it begins early, with the last tokens: of rank 0's, rank 1 sees none.
  std::vector<Range> travelling(int rank) const {
    const std::int64_t rows = tokens_of(rank).seq_local;
    if (ranks() > 2) return {{0, rows}};
    return {{rows / 2, rows}, {0, rows / 2}};
  }
  AttentionSpec spec_of(const Piece& piece) const {
    AttentionSpec result = spec;
    result.causal = piece.causal;
    result.q_begin = piece.q_begin;
    result.k_begin = piece.k_begin;
    return result;
  }
  Tensor make(ExecContext& exec, Shape shape, DType type) const {
    return Tensor::empty(exec.memory(), shape, type, MemoryUse::activation);
  }
  Tensor block(ExecContext& exec, int rank, DType type) const {
    return make(exec, {batch, tokens_of(rank).seq_local, kv_width()}, type);
  }
  /// The key and value heads of a block [B, T, 2·Hkv·hd].
  std::pair<MutView, MutView> heads_of(const Tensor& block) const {
    const std::int64_t t = block.shape()[1], w = kv_width(), hd = layout.head_dim;
    MutView keys = block.mut();
    keys.shape = {batch, t, layout.kv_heads, hd};
    keys.strides = {t * w, w, hd, 1};
    MutView values = keys;
    values.data = static_cast<char*>(keys.data) + w / 2 * static_cast<std::int64_t>(size_of(keys.dtype));
    return {keys, values};
  }
};

Tensor packed(ExecContext& exec, const Ring& ring, const Tensor& qkv) {
  Tensor block = ring.block(exec, ring.group->rank(), ring.dtype);
  exec.kernels().elementwise.copy(exec, part_of(qkv.mut(), 2, ring.kv_columns()), block.mut());
  return block;
}

/// The block that goes on to the next rank, and the one that comes from the rank before. Both stay until they are waited for,
/// so that what is in memory does not depend on how fast the network is.
class BlockTransfer {
 public:
  ~BlockTransfer() { drain(work_); }
  void start(const Ring& ring, const Tensor& out, const Tensor& in, int tag) {
    using Both = std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>;
    keep_ = std::make_shared<Both>(out.keep_alive(), in.keep_alive());
    work_ = ring.group->send_recv(out.view(), ring.next(), in.mut(), ring.previous(), tag, keep_);
  }
  void wait() {
    work_.wait();
    keep_.reset();
  }

 private:
  std::shared_ptr<const void> keep_;
  Work work_;
};

/// Attention over all blocks so far: f32 sums, merged by their log-sum-exp.
class RunningAttention {
 public:
  RunningAttention(ExecContext& exec, const Ring& ring)
      : exec_(exec), ring_(ring), rows_{0, ring.tokens.seq_local},
        out_(ring.make(exec, {ring.batch, rows_.size(), ring.layout.heads, ring.layout.head_dim}, DType::f32)),
        lse_(ring.make(exec, {ring.batch, ring.layout.heads, rows_.size()}, DType::f32)) {}

  void add(const MutView& queries, const std::pair<MutView, MutView>& block, const Piece& piece) {
    const auto& kernels = exec_.kernels();
    const View q = part_of(queries, 1, piece.q), k = part_of(block.first, 1, piece.k),
               v = part_of(block.second, 1, piece.k);
    const bool first = !std::exchange(begun_, true), whole = piece.q.size() == rows_.size();
    if (first && whole) {
      const Tensor part = ring_.dtype == DType::f32 ? out_ : ring_.make(exec_, q.shape, ring_.dtype);
      kernels.attention.forward(exec_, q, k, v, ring_.spec_of(piece), part.mut(), lse_.mut());
      if (ring_.dtype != DType::f32) kernels.elementwise.copy(exec_, part.view(), out_.mut());
      return;
    }
    if (first) {
      kernels.elementwise.fill(exec_, 0.0f, out_.mut());
      kernels.elementwise.fill(exec_, -std::numeric_limits<float>::infinity(), lse_.mut());
    }
    const Tensor part = ring_.make(exec_, q.shape, ring_.dtype);
    const Tensor part_lse = ring_.make(exec_, {ring_.batch, ring_.layout.heads, piece.q.size()}, DType::f32);
    kernels.attention.forward(exec_, q, k, v, ring_.spec_of(piece), part.mut(), part_lse.mut());
    kernels.attention.merge(exec_, part.view(), part_lse.view(), part_of(out_.mut(), 1, piece.q),
                            part_of(lse_.mut(), 2, piece.q));
  }
  const Tensor& lse() const { return lse_; }
  Tensor out() const {
    if (ring_.dtype == DType::f32) return out_;
    Tensor narrow = ring_.make(exec_, out_.shape(), ring_.dtype);
    exec_.kernels().elementwise.copy(exec_, out_.view(), narrow.mut());
    return narrow;
  }

 private:
  ExecContext& exec_;
  const Ring& ring_;
  Range rows_;
  Tensor out_, lse_;
  bool begun_ = false;
};

struct RingBackward {
  Ring ring;
  Tensor qkv, out, lse;

  /// Gradients through one piece, in the compute dtype.
  struct Part {
    Piece piece;
    Tensor dq, dkv;
  };
  Part through(ExecContext& exec, const MutView& queries, const MutView& dout, const Tensor& block,
               const Piece& piece) const {
    const std::int64_t heads = ring.layout.heads;
    Part part{piece, ring.make(exec, {ring.batch, piece.q.size(), heads, ring.layout.head_dim}, ring.dtype),
              ring.make(exec, {ring.batch, piece.k.size(), ring.kv_width()}, ring.dtype)};
    Tensor part_lse = lse;
    if (piece.q.size() != ring.tokens.seq_local) {
      part_lse = ring.make(exec, {ring.batch, heads, piece.q.size()}, DType::f32);
      exec.kernels().elementwise.copy(exec, part_of(lse.mut(), 2, piece.q), part_lse.mut());
    }
    const auto [keys, values] = ring.heads_of(block);
    const auto [dk, dv] = ring.heads_of(part.dkv);
    exec.kernels().attention.backward(exec, part_of(queries, 1, piece.q), part_of(keys, 1, piece.k),
                                      part_of(values, 1, piece.k), part_of(out.mut(), 1, piece.q), part_lse.view(),
                                      part_of(dout, 1, piece.q), ring.spec_of(piece), part.dq.mut(), dk, dv);
    return part;
  }

  Tensor zeros(ExecContext& exec, Shape shape) const {
    const Tensor sums = ring.make(exec, shape, DType::f32);
    exec.kernels().elementwise.fill(exec, 0.0f, sums.mut());
    return sums;
  }
  static void add(ExecContext& exec, const Part& part, const Tensor& dq, MutView dkv) {
    exec.kernels().elementwise.accumulate(exec, part.dq.view(), part_of(dq.mut(), 1, part.piece.q));
    exec.kernels().elementwise.accumulate(exec, part.dkv.view(), dkv);
  }

  void operator()(BackwardPass& pass) const {
    ExecContext& exec = pass.exec();
    const auto& elementwise = exec.kernels().elementwise;
    const MutView queries = ops::split_heads(qkv, ring.layout).q;
    const Tensor dout = pass.grad(0).reshaped(out.shape());
    const Tensor own = packed(exec, ring, qkv);
    const Tensor dq = zeros(exec, out.shape()), dkv = zeros(exec, own.shape());
    const std::vector<Piece> own_pieces = ring.own_pieces();
    const auto add_own = [&](std::size_t first) {
      for (std::size_t i = first; i < own_pieces.size(); i += 2)
        add(exec, through(exec, queries, dout.mut(), own, own_pieces[i]), dq, part_of(dkv.mut(), 1, own_pieces[i].k));
    };
    const std::vector<Range> home = ring.travelling(ring.owner(0));
    std::vector<Tensor> sums(home.size());
    std::vector<BlockTransfer> gradients(home.size());
    BlockTransfer values;
    Tensor block = own, next_block;
    for (int step = 0; step < ring.ranks(); ++step) {
      if (step + 1 < ring.ranks()) {
        next_block = ring.block(exec, ring.owner(step + 1), ring.dtype);
        values.start(ring, block, next_block, values_tag);
      }
      const std::vector<Range> travelling = ring.travelling(ring.owner(step)),
                               coming = ring.travelling(ring.owner(step + 1));
      if (step == 0) add_own(0);
      for (std::size_t i = 0; step > 0 && i < travelling.size(); ++i) {
        const Range rows = travelling[i];
        std::vector<Part> parts;
        for (const Piece& piece : within(ring.pieces(ring.owner(step)), rows))
          parts.push_back(through(exec, queries, dout.mut(), block, piece));
        // What the ranks before added up has travelled while this block was computed with.
        gradients[i].wait();
        if (step == 1) sums[i] = zeros(exec, {ring.batch, rows.size(), ring.kv_width()});
        for (const Part& part : parts)
          add(exec, part, dq,
              part_of(sums[i].mut(), 1, {part.piece.k.begin - rows.begin, part.piece.k.end - rows.begin}));
        const Tensor arriving = ring.make(exec, {ring.batch, coming[i].size(), ring.kv_width()}, DType::f32);
        gradients[i].start(ring, sums[i], arriving, gradients_tag + static_cast<int>(i));
        sums[i] = arriving;
      }
      values.wait();
      block = next_block;
    }
    add_own(1);
    for (std::size_t i = 0; i < home.size(); ++i) {
      gradients[i].wait();
      elementwise.accumulate(exec, sums[i].view(), part_of(dkv.mut(), 1, home[i]));
    }
    Tensor dqkv = pass.empty_like(qkv);
    elementwise.copy(exec, dq.view(), ops::split_heads(dqkv, ring.layout).q);
    elementwise.copy(exec, dkv.view(), part_of(dqkv.mut(), 2, ring.kv_columns()));
    pass.give(0, std::move(dqkv));
  }
};

}  // namespace

Tensor ring_attention(OpContext& cx, Communicator& group, const Tensor& qkv, const ops::HeadLayout& layout,
                      const ops::AttentionOptions& options, TokenOrder order) {
  const Ring ring{&group,    layout,         options,    order, ops::attention_spec(cx, layout, options),
                  cx.tokens, qkv.shape()[0], qkv.dtype()};
  const MutView queries = ops::split_heads(qkv, layout).q;
  RunningAttention running(cx.exec, ring);
  Tensor block = packed(cx.exec, ring, qkv);
  BlockTransfer values;
  double pairs = 0;
  for (int step = 0; step < ring.ranks(); ++step) {
    Tensor next_block;
    if (step + 1 < ring.ranks()) {
      next_block = ring.block(cx.exec, ring.owner(step + 1), ring.dtype);
      values.start(ring, block, next_block, values_tag);
    }
    for (const Piece& piece : ring.pieces(ring.owner(step))) {
      running.add(queries, ring.heads_of(block), piece);
      const double size = static_cast<double>(piece.q.size() * piece.k.size());
      pairs += piece.causal ? (size + static_cast<double>(piece.q.size())) / 2 : size;
    }
    values.wait();
    block = next_block;
  }
  const Tensor out = running.out();
  Tensor y = out.reshaped({ring.batch, cx.tokens.seq_local, layout.heads * layout.head_dim});
  if (!cx.recording()) return y;
  const auto [forward, backward] =
      ops::attention_costs(pairs * static_cast<double>(ring.batch * layout.heads), layout.head_dim,
                           static_cast<double>(qkv.view().bytes() + out.view().bytes()));
  cx.tape->record({"ring_attention", {&qkv}, {&y}, {}, forward, backward},
                  RingBackward{ring, qkv.detached(), out, running.lse()});
  return y;
}

}  // namespace weft
