#include "core/ops/relative_attention.hpp"

#include <algorithm>

namespace weft::ops {
namespace {

constexpr float base = 10000;

struct KeysValues {
  MutView k, v;
};

// Rows [from, from + count) of keys and values side by side.
KeysValues split_rows(const Tensor& keys_values, const HeadLayout& layout, std::int64_t from, std::int64_t count) {
  const std::int64_t batch = keys_values.shape()[0], rows = keys_values.shape()[1], hd = layout.head_dim;
  const std::int64_t width = 2 * layout.kv_heads * hd;
  WEFT_CHECK(keys_values.shape()[2] == width && from >= 0 && from + count <= rows, "rows {} to {} of {}", from,
             from + count, to_string(keys_values.shape()));
  const auto half = [&](std::int64_t column) {
    MutView view = keys_values.mut();
    view.data = static_cast<char*>(view.data) +
                (from * width + column) * static_cast<std::int64_t>(size_of(keys_values.dtype()));
    view.shape = {batch, count, layout.kv_heads, hd};
    view.strides = {rows * width, width, hd, 1};
    return view;
  };
  return {half(0), half(layout.kv_heads * hd)};
}

void copy(ExecContext& exec, const KeysValues& from, const KeysValues& to) {
  exec.kernels().elementwise.copy(exec, from.k, to.k);
  exec.kernels().elementwise.copy(exec, from.v, to.v);
}

struct Saved {
  Tensor qkv, keys_values, r, out, lse;
  std::int64_t first;
  Parameter *content_bias, *place_bias;
  HeadLayout layout;
  AttentionSpec spec;

  Shape by_head() const { return {layout.heads, layout.head_dim}; }
  Shape distances() const { return {r.shape()[0], layout.heads, layout.head_dim}; }
  RelativePositions positions() const {
    return {r.view().reshaped(distances()), first, content_bias->value().view().reshaped(by_head()),
            place_bias->value().view().reshaped(by_head())};
  }
  // Of all tokens, and of the new ones among them.
  KeysValues seen() const {
    const Heads<MutView> heads = split_heads(qkv, layout);
    return keys_values.defined() ? split_rows(keys_values, layout, 0, keys_values.shape()[1])
                                 : KeysValues{heads.k, heads.v};
  }
  std::int64_t remembered() const { return keys_values.defined() ? keys_values.shape()[1] - qkv.shape()[1] : 0; }

  void operator()(BackwardPass& pass) const {
    ExecContext& exec = pass.exec();
    const ParameterUse use_content(content_bias, Pass::backward), use_place(place_bias, Pass::backward);
    const Heads<MutView> heads = split_heads(qkv, layout);
    const KeysValues in = seen();
    Tensor dqkv = pass.empty_like(qkv), dr = pass.empty_like(r), dkeys_values;
    const Heads<MutView> to = split_heads(dqkv, layout);
    KeysValues grad{to.k, to.v};
    if (keys_values.defined()) {
      dkeys_values = pass.empty_like(keys_values);
      grad = split_rows(dkeys_values, layout, 0, keys_values.shape()[1]);
    }
    const Write write = content_bias->next_grad_write();
    WEFT_CHECK(place_bias->next_grad_write() == write, "{} is used apart", place_bias->name());
    exec.kernels().attention.relative_backward(
        exec, heads.q, in.k, in.v, positions(), out.view(), lse.view(), pass.grad(0).view().reshaped(out.shape()), spec,
        to.q, grad.k, grad.v,
        {dr.mut().reshaped(distances()), content_bias->grad().mut().reshaped(by_head()),
         place_bias->grad().mut().reshaped(by_head()), write});
    if (dkeys_values.defined())
      copy(exec, split_rows(dkeys_values, layout, remembered(), qkv.shape()[1]), {to.k, to.v});
    pass.give(0, std::move(dqkv));
    pass.give(1, std::move(dr));
  }
};

}  // namespace

Tensor sinusoids(OpContext& cx, std::int64_t first, std::int64_t count, std::int64_t width) {
  WEFT_CHECK(width % 2 == 0, "sinusoids of width {}", width);
  const ElementwiseKernels& elementwise = cx.kernels().elementwise;
  // The rotation by −d of (0, 1) is (sin d, cos d).
  const Tensor start = cx.empty({2, width / 2}, cx.compute), all = cx.empty({count, width}, cx.compute);
  elementwise.fill(cx.exec, 0, start.slice(0, 1).mut());
  elementwise.fill(cx.exec, 1, start.slice(1, 2).mut());
  View x = start.view();
  x.shape = {1, count, 1, width};
  x.strides = {0, 0, 0, 1};
  TokenMap distances;
  distances.seq_global = distances.seq_local = distances.first_length = count;
  distances.begin = {first, 0};
  cx.kernels().embedding.rotary(cx.exec, x, distances, base, true, all.mut().reshaped({1, count, 1, width}));
  return all;
}

RelativeAttended relative_attention(OpContext& cx, const Tensor& qkv, const AttentionMemory* memory,
                                    const RelativeTerm& term, const HeadLayout& layout,
                                    const AttentionOptions& options) {
  const Heads<MutView> heads = split_heads(qkv, layout);
  const Shape& shape = heads.q.shape;
  const std::int64_t batch = shape[0], tokens = shape[1], remembered = memory ? memory->tokens : 0;
  Saved call{qkv.detached(),
             {},
             term.r.detached(),
             cx.empty(shape, qkv.dtype()),
             {},
             term.first,
             &term.content_bias,
             &term.place_bias,
             layout,
             attention_spec(cx, layout, options)};
  if (memory) {
    call.keys_values = cx.empty({batch, remembered + tokens, 2 * layout.kv_heads * layout.head_dim}, qkv.dtype());
    if (remembered > 0) {
      const Tensor& before = memory->keys_values;
      WEFT_CHECK(before.shape()[0] == batch && before.dtype() == qkv.dtype(), "a memory of {} for {}",
                 to_string(before.shape()), to_string(qkv.shape()));
      copy(cx.exec, split_rows(before, layout, before.shape()[1] - remembered, remembered),
           split_rows(call.keys_values, layout, 0, remembered));
    }
    copy(cx.exec, {heads.k, heads.v}, split_rows(call.keys_values, layout, remembered, tokens));
    call.spec.q_begin = remembered;
    call.spec.k_begin = 0;
    call.spec.seq_global = std::max(call.spec.seq_global, remembered + tokens);
  }
  if (cx.recording()) call.lse = cx.empty({batch, shape[2], tokens}, DType::f32);
  const KeysValues seen = call.seen();
  {
    const ParameterUse use_content(call.content_bias, Pass::forward), use_place(call.place_bias, Pass::forward);
    cx.kernels().attention.relative_forward(cx.exec, heads.q, seen.k, seen.v, call.positions(), call.spec,
                                            call.out.mut(), call.lse.mut());
  }
  RelativeAttended result{call.out.reshaped({batch, tokens, shape[2] * shape[3]}), call.keys_values};
  if (!cx.recording()) return result;
  const auto t = static_cast<double>(tokens), before = static_cast<double>(remembered);
  const double pairs =
      static_cast<double>(batch * shape[2]) * (options.causal ? t * before + t * (t + 1) / 2 : t * (before + t));
  const Cost forward = relative_attention_cost(
      pairs, shape[3], static_cast<double>(2 * (heads.q.bytes() + seen.k.bytes()) + call.r.view().bytes()));
  const Cost backward{forward.flops * 8 / 3, 2 * forward.bytes, forward.depth, forward.min_depth};
  cx.tape->record(
      {"relative_attention", {&qkv, &term.r}, {&result.y}, {call.content_bias, call.place_bias}, forward, backward},
      call);
  return result;
}

}  // namespace weft::ops
