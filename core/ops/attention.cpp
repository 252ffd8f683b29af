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

AttentionSpec make_spec(const OpContext& cx, const HeadLayout& layout, const AttentionOptions& options) {
  AttentionSpec spec;
  spec.causal = options.causal;
  spec.scale = 1.0f / std::sqrt(static_cast<float>(layout.head_dim));
  spec.heads_global = layout.heads;
  spec.seq_global = cx.tokens.seq_global;
  spec.q_begin = spec.k_begin = cx.tokens.begin[0];
  if (options.dropout > 0 && cx.dropout_keys)
    spec.dropout = {options.dropout, cx.dropout_keys + options.dropout_site, cx.tokens, 0, 0};
  return spec;
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

Heads<MutView> split_heads(const Tensor& qkv, const HeadLayout& layout) {
  const Shape& shape = qkv.shape();
  WEFT_CHECK(shape.rank() == 3 && shape[2] == layout.width(), "{} is not {} + 2·{} heads of {}", to_string(shape),
             layout.heads, layout.kv_heads, layout.head_dim);
  const MutView all = qkv.mut();
  const std::int64_t b = shape[0], t = shape[1], e = shape[2], hd = layout.head_dim;
  return {columns(all, b, t, e, 0, layout.heads, hd), columns(all, b, t, e, layout.heads * hd, layout.kv_heads, hd),
          columns(all, b, t, e, (layout.heads + layout.kv_heads) * hd, layout.kv_heads, hd)};
}

Tensor attention(OpContext& cx, const Tensor& qkv, const HeadLayout& layout, const AttentionOptions& options) {
  const std::int64_t b = qkv.shape()[0], t = qkv.shape()[1];
  const AttentionSpec spec = make_spec(cx, layout, options);
  const Heads<MutView> heads = split_heads(qkv, layout);
  Tensor out = cx.empty({b, t, layout.heads, layout.head_dim}, qkv.dtype());
  Tensor lse;
  if (cx.recording()) lse = cx.empty({b, layout.heads, t}, DType::f32);
  cx.kernels().attention.forward(cx.exec, heads.q, heads.k, heads.v, spec, out.mut(), lse.mut());
  Tensor y = out.reshaped({b, t, layout.heads * layout.head_dim});
  if (!cx.recording()) return y;

  const double length = static_cast<double>(t);
  const double pairs = static_cast<double>(b * layout.heads) * (options.causal ? length * (length + 1) / 2 : length * length);
  const Cost forward =
      attention_cost(pairs, layout.head_dim, static_cast<double>(qkv.view().bytes() + out.view().bytes()));
  Cost backward = forward;
  backward.flops *= 2.5;
  backward.bytes *= 2;
  cx.tape->record({"attention", {&qkv}, {&y}, {}, forward, backward},
                  [qkv = qkv.detached(), out, lse, layout, spec](BackwardPass& pass) {
                    ExecContext& exec = pass.exec();
                    Tensor dqkv = pass.empty_like(qkv);
                    const Heads<MutView> in = split_heads(qkv, layout), grad = split_heads(dqkv, layout);
                    exec.kernels().attention.backward(exec, in.q, in.k, in.v, out.view(), lse.view(),
                                                      pass.grad(0).view().reshaped(out.shape()), spec, grad.q, grad.k,
                                                      grad.v);
                    pass.give(0, std::move(dqkv));
                  });
  return y;
}

Tensor attention_cached(OpContext& cx, const Tensor& qkv, const HeadLayout& layout, KeyValueCache& cache) {
  WEFT_CHECK(!cx.recording(), "a key-value cache has no gradient");
  const std::int64_t b = qkv.shape()[0], t = qkv.shape()[1], capacity = cache.keys.shape()[1];
  const std::int64_t end = cache.length + t;
  WEFT_CHECK(end <= capacity, "the key-value cache holds {} tokens, {} are needed", capacity, end);
  const Heads<MutView> heads = split_heads(qkv, layout);
  const auto part = [](const Tensor& store, std::int64_t from, std::int64_t to) {
    MutView view = store.mut();
    view.data = static_cast<char*>(view.data) + from * view.strides[1] * static_cast<std::int64_t>(size_of(view.dtype));
    view.shape[1] = to - from;
    return view;
  };
  cx.kernels().elementwise.copy(cx.exec, heads.k, part(cache.keys, cache.length, end));
  cx.kernels().elementwise.copy(cx.exec, heads.v, part(cache.values, cache.length, end));
  AttentionSpec spec = make_spec(cx, layout, {});
  spec.q_begin = cache.length;
  spec.k_begin = 0;
  const Tensor out = cx.empty({b, t, layout.heads, layout.head_dim}, qkv.dtype());
  cx.kernels().attention.forward(cx.exec, heads.q, part(cache.keys, 0, end), part(cache.values, 0, end), spec, out.mut(),
                                 {});
  cache.length = end;
  return out.reshaped({b, t, layout.heads * layout.head_dim});
}

Tensor rotary(OpContext& cx, Tensor qkv, const HeadLayout& layout, float theta) {
  const Tensor x = qkv;
  qkv = {};
  // x and the caller's handle: in place is safe only when that handle was moved in.
  Tensor y = x.unique() ? x.detached() : cx.empty(x.shape(), x.dtype());
  turn(cx.exec, x, y, layout, cx.tokens, theta, false);
  if (!cx.recording()) return y;
  const Cost cost = elementwise_cost(x.numel(), 6, 2.0 * static_cast<double>(size_of(x.dtype())));
  cx.tape->record({"rotary", {&x}, {&y}, {}, cost, cost},
                  [layout, theta, tokens = cx.tokens](BackwardPass& pass) {
                    const Tensor& dy = pass.grad(0);
                    Tensor dx = pass.empty_like(dy);
                    turn(pass.exec(), dy, dx, layout, tokens, theta, true);
                    pass.give(0, std::move(dx));
                  });
  return y;
}

}  // namespace weft::ops
