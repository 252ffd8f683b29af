#include "core/ops/attention.hpp"

#include <cmath>

namespace weft::ops {
namespace {

MutView columns(const MutView& rows, std::int64_t batch, std::int64_t seq, std::int64_t width, std::int64_t begin,
                std::int64_t heads, std::int64_t head_dim) {
  MutView view = rows;
  view.data = static_cast<char*>(rows.data) + begin * static_cast<std::int64_t>(size_of(rows.dtype));
  view.shape = {batch, seq, heads, head_dim};
  view.strides = {seq * width, width, head_dim, 1};
  return view;
}

// Turns query and key heads (and copies value heads when y is another tensor).
void turn(ExecContext& exec, const Tensor& x, const Tensor& y, const HeadLayout& layout, const TokenMap& tokens,
          float theta, bool inverse) {
  const Heads<MutView> from = split_heads(x, layout), to = split_heads(y, layout);
  exec.kernels().embedding.rotary(exec, from.q, tokens, theta, inverse, to.q);
  exec.kernels().embedding.rotary(exec, from.k, tokens, theta, inverse, to.k);
  if (x.mut().data != y.mut().data) exec.kernels().elementwise.copy(exec, from.v, to.v);
}

}  // namespace

AttentionSpec attention_spec(const OpContext& cx, const HeadLayout& layout, const AttentionOptions& options) {
  AttentionSpec spec;
  spec.causal = options.causal;
  spec.scale = 1.0f / std::sqrt(static_cast<float>(layout.head_dim));
  spec.head_begin = layout.head_begin;
  spec.heads_global = layout.heads_global > 0 ? layout.heads_global : layout.heads;
  spec.seq_global = cx.tokens.seq_global;
  spec.q_begin = spec.k_begin = cx.tokens.begin[0];
  if (options.dropout > 0 && cx.dropout_keys)
    spec.dropout = {options.dropout, cx.dropout_keys + options.dropout_site, cx.tokens, 0, 0};
  return spec;
}

std::pair<Cost, Cost> attention_costs(double pairs, std::int64_t head_dim, double bytes) {
  const Cost forward = attention_cost(pairs, head_dim, bytes);
  return {forward, {2.5 * forward.flops, 2 * forward.bytes, forward.depth, forward.min_depth}};
}

Heads<MutView> split_heads(const Tensor& qkv, const HeadLayout& layout) {
  const Shape& shape = qkv.shape();
  WEFT_CHECK(shape.rank() == 3 && shape[2] == layout.width(), "{} is not {} + 2·{} heads of {}", to_string(shape),
             layout.heads, layout.kv_heads, layout.head_dim);
  const MutView all = qkv.mut();
  const std::int64_t b = shape[0], t = shape[1], e = shape[2], hd = layout.head_dim;
  return {columns(all, b, t, e, 0, layout.heads, hd), columns(all, b, t, e, layout.heads * hd, layout.kv_heads, hd),
          columns(all, b, t, e, (layout.heads + layout.kv_heads) * hd, layout.kv_heads, hd)};
}

namespace {

Heads<MutView> split_heads(const Tensor& q, const Tensor& kv, const HeadLayout& layout) {
  const std::int64_t b = q.shape()[0], t = q.shape()[1], hd = layout.head_dim, width = 2 * layout.kv_heads * hd;
  WEFT_CHECK(q.shape() == Shape({b, t, layout.heads * hd}) && kv.shape() == Shape({b, t, width}),
             "{} and {} are not {} and 2·{} heads of {}", to_string(q.shape()), to_string(kv.shape()), layout.heads,
             layout.kv_heads, hd);
  return {columns(q.mut(), b, t, layout.heads * hd, 0, layout.heads, hd),
          columns(kv.mut(), b, t, width, 0, layout.kv_heads, hd),
          columns(kv.mut(), b, t, width, layout.kv_heads * hd, layout.kv_heads, hd)};
}

struct Attended {
  Tensor out;  ///< [B, T, H, hd]
  Tensor lse;  ///< undefined where nothing is recorded
};

Attended attend(OpContext& cx, const Heads<MutView>& heads, const AttentionSpec& spec) {
  const Shape& shape = heads.q.shape;
  Attended result{cx.empty(shape, heads.q.dtype), {}};
  if (cx.recording()) result.lse = cx.empty({shape[0], shape[2], shape[1]}, DType::f32);
  cx.kernels().attention.forward(cx.exec, heads.q, heads.k, heads.v, spec, result.out.mut(), result.lse.mut());
  return result;
}

void attend_backward(ExecContext& exec, const Heads<MutView>& in, const Attended& forward, const Tensor& dy,
                     const AttentionSpec& spec, const Heads<MutView>& grad) {
  exec.kernels().attention.backward(exec, in.q, in.k, in.v, forward.out.view(), forward.lse.view(),
                                    dy.view().reshaped(forward.out.shape()), spec, grad.q, grad.k, grad.v);
}

struct Costs {
  Cost forward, backward;
};

Costs costs_of(const Heads<MutView>& heads, bool causal) {
  const Shape& shape = heads.q.shape;
  const auto length = static_cast<double>(shape[1]);
  const double pairs =
      static_cast<double>(shape[0] * shape[2]) * (causal ? length * (length + 1) / 2 : length * length);
  const std::size_t bytes = 2 * (heads.q.bytes() + heads.k.bytes());
  const auto [forward, backward] = attention_costs(pairs, shape[3], static_cast<double>(bytes));
  return {forward, backward};
}

Tensor joined(const Tensor& out) {
  const Shape& shape = out.shape();
  return out.reshaped({shape[0], shape[1], shape[2] * shape[3]});
}

HeadLayout single_head(const Tensor& memory) { return {1, 1, memory.shape()[2]}; }

/// Queries over rows that are both keys and values.
Heads<MutView> memory_heads(const Tensor& q, const Tensor& memory) {
  WEFT_CHECK(q.shape() == memory.shape() && q.shape().rank() == 3, "{} over {}", to_string(q.shape()),
             to_string(memory.shape()));
  const std::int64_t b = q.shape()[0], t = q.shape()[1], d = q.shape()[2];
  const MutView rows = columns(memory.mut(), b, t, d, 0, 1, d);
  return {columns(q.mut(), b, t, d, 0, 1, d), rows, rows};
}

Tensor attend_cached(OpContext& cx, const Heads<MutView>& heads, const HeadLayout& layout, KeyValueCache& cache) {
  WEFT_CHECK(!cx.recording(), "a key-value cache has no gradient");
  const std::int64_t capacity = cache.keys.shape()[1], end = cache.length + heads.q.shape[1];
  WEFT_CHECK(end <= capacity, "the key-value cache holds {} tokens, {} are needed", capacity, end);
  const auto part = [](const Tensor& store, std::int64_t from, std::int64_t to) {
    MutView view = store.mut();
    view.data = static_cast<char*>(view.data) + from * view.strides[1] * static_cast<std::int64_t>(size_of(view.dtype));
    view.shape[1] = to - from;
    return view;
  };
  cx.kernels().elementwise.copy(cx.exec, heads.k, part(cache.keys, cache.length, end));
  if (heads.v.data != heads.k.data)
    cx.kernels().elementwise.copy(cx.exec, heads.v, part(cache.values, cache.length, end));
  AttentionSpec spec = attention_spec(cx, layout, {});
  spec.q_begin = cache.length;
  spec.k_begin = 0;
  cache.length = end;
  return joined(attend(cx, {heads.q, part(cache.keys, 0, end), part(cache.values, 0, end)}, spec).out);
}

}  // namespace

Tensor attention(OpContext& cx, const Tensor& qkv, const HeadLayout& layout, const AttentionOptions& options) {
  const AttentionSpec spec = attention_spec(cx, layout, options);
  const Heads<MutView> heads = split_heads(qkv, layout);
  const Attended attended = attend(cx, heads, spec);
  Tensor y = joined(attended.out);
  if (!cx.recording()) return y;
  const Costs costs = costs_of(heads, options.causal);
  cx.tape->record({"attention", {&qkv}, {&y}, {}, costs.forward, costs.backward}, [qkv = qkv.detached(), attended,
                                                                                   layout, spec](BackwardPass& pass) {
    Tensor dqkv = pass.empty_like(qkv);
    attend_backward(pass.exec(), split_heads(qkv, layout), attended, pass.grad(0), spec, split_heads(dqkv, layout));
    pass.give(0, std::move(dqkv));
  });
  return y;
}

Tensor attention(OpContext& cx, const Tensor& q, const Tensor& kv, const HeadLayout& layout,
                 const AttentionOptions& options) {
  const AttentionSpec spec = attention_spec(cx, layout, options);
  const Heads<MutView> heads = split_heads(q, kv, layout);
  const Attended attended = attend(cx, heads, spec);
  Tensor y = joined(attended.out);
  if (!cx.recording()) return y;
  const Costs costs = costs_of(heads, options.causal);
  cx.tape->record({"attention", {&q, &kv}, {&y}, {}, costs.forward, costs.backward},
                  [q = q.detached(), kv = kv.detached(), attended, layout, spec](BackwardPass& pass) {
                    Tensor dq = pass.empty_like(q), dkv = pass.empty_like(kv);
                    attend_backward(pass.exec(), split_heads(q, kv, layout), attended, pass.grad(0), spec,
                                    split_heads(dq, dkv, layout));
                    pass.give(0, std::move(dq));
                    pass.give(1, std::move(dkv));
                  });
  return y;
}

Tensor memory_attention(OpContext& cx, const Tensor& q, const Tensor& memory, const AttentionOptions& options) {
  const AttentionSpec spec = attention_spec(cx, single_head(memory), options);
  const Heads<MutView> heads = memory_heads(q, memory);
  const Attended attended = attend(cx, heads, spec);
  Tensor y = joined(attended.out);
  if (!cx.recording()) return y;
  const Costs costs = costs_of(heads, options.causal);
  cx.tape->record({"attention", {&q, &memory}, {&y}, {}, costs.forward, costs.backward},
                  [q = q.detached(), memory = memory.detached(), attended, spec](BackwardPass& pass) {
                    Tensor dq = pass.empty_like(q), as_keys = pass.empty_like(memory);
                    const Tensor as_values = pass.empty_like(memory);
                    Heads<MutView> grad = memory_heads(dq, as_keys);
                    grad.v = memory_heads(dq, as_values).v;
                    attend_backward(pass.exec(), memory_heads(q, memory), attended, pass.grad(0), spec, grad);
                    pass.exec().kernels().elementwise.add(pass.exec(), as_keys.view(), as_values.view(), as_keys.mut());
                    pass.give(0, std::move(dq));
                    pass.give(1, std::move(as_keys));
                  });
  return y;
}

Tensor memory_attention_cached(OpContext& cx, const Tensor& q, const Tensor& memory, KeyValueCache& cache) {
  return attend_cached(cx, memory_heads(q, memory), single_head(memory), cache);
}

Tensor attention_cached(OpContext& cx, const Tensor& qkv, const HeadLayout& layout, KeyValueCache& cache) {
  return attend_cached(cx, split_heads(qkv, layout), layout, cache);
}

Tensor attention_cached(OpContext& cx, const Tensor& q, const Tensor& kv, const HeadLayout& layout,
                        KeyValueCache& cache) {
  return attend_cached(cx, split_heads(q, kv, layout), layout, cache);
}

Tensor rotary(OpContext& cx, Tensor qkv, const HeadLayout& layout, float theta) {
  const Tensor x = qkv;
  qkv = {};
  // x and the caller's handle: in place is safe only when that handle was moved in.
  Tensor y = x.unique() ? x.detached() : cx.empty(x.shape(), x.dtype());
  turn(cx.exec, x, y, layout, cx.tokens, theta, false);
  if (!cx.recording()) return y;
  const Cost cost = elementwise_cost(x.numel(), 6, 2.0 * static_cast<double>(size_of(x.dtype())));
  cx.tape->record({"rotary", {&x}, {&y}, {}, cost, cost}, [layout, theta, tokens = cx.tokens](BackwardPass& pass) {
    const Tensor& dy = pass.grad(0);
    Tensor dx = pass.empty_like(dy);
    turn(pass.exec(), dy, dx, layout, tokens, theta, true);
    pass.give(0, std::move(dx));
  });
  return y;
}

}  // namespace weft::ops
