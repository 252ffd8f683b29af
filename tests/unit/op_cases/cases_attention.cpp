#include <cmath>
#include <limits>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

struct Sizes {
  std::int64_t batch, q_len, k_len, heads, kv_heads, dim;
};

struct Options {
  bool causal = true;
  float p = 0;
  std::int64_t q_begin = 0, k_begin = 0;
  bool fused = false;    // q, k, v are slices of one projection (q_len = k_len)
  bool with_lse = true;  // without it there is no backward
  double scale = 1;      // of queries, to make the softmax sharp
};

struct Spec : Sizes, Options {
  std::string name;
  Spec(std::string name_, Sizes sizes, Options options = {}) : Sizes(sizes), Options(options), name(std::move(name_)) {}
};

constexpr std::int64_t heads_behind = 1, head_begin = 2, first_sequence = 1;

struct Layout {
  std::int64_t q, k, v, row_q, row_k;  // offsets in a row and the rows' widths
};

Layout layout_of(const Spec& s) {
  const std::int64_t q = s.heads * s.dim, kv = s.kv_heads * s.dim;
  if (s.fused) return {0, q, q + kv, q + 2 * kv, q + 2 * kv};
  return {0, 0, kv, q, 2 * kv};
}

void oracle(const Spec& s, const Values& in, Values& out) {
  const Layout at = layout_of(s);
  const auto& q_rows = in.at(s.fused ? "qkv" : "q");
  const auto& kv_rows = in.at(s.fused ? "qkv" : "kv");
  const std::int64_t seq_global = std::max(s.q_begin + s.q_len, s.k_begin + s.k_len) + 1;
  const double factor = 1 / std::sqrt(static_cast<double>(s.dim));
  std::vector<double> scores(static_cast<std::size_t>(s.k_len));
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t i = 0; i < s.q_len; ++i) {
        const std::int64_t kv = h / (s.heads / s.kv_heads);
        const double* q = &q_rows[static_cast<std::size_t>((b * s.q_len + i) * at.row_q + at.q + h * s.dim)];
        double* y = &out["out"][static_cast<std::size_t>(((b * s.q_len + i) * s.heads + h) * s.dim)];
        const std::int64_t visible =
            s.causal ? std::min(s.k_len, std::max<std::int64_t>(0, s.q_begin + i - s.k_begin + 1)) : s.k_len;
        double highest = -std::numeric_limits<double>::infinity(), sum = 0;
        for (std::int64_t j = 0; j < visible; ++j) {
          const double* k = &kv_rows[static_cast<std::size_t>((b * s.k_len + j) * at.row_k + at.k + kv * s.dim)];
          double score = 0;
          for (std::int64_t d = 0; d < s.dim; ++d) score += q[d] * k[d];
          scores[static_cast<std::size_t>(j)] = score * factor;
          highest = std::max(highest, score * factor);
        }
        for (std::int64_t j = 0; j < visible; ++j) sum += std::exp(scores[static_cast<std::size_t>(j)] - highest);
        for (std::int64_t d = 0; d < s.dim; ++d) y[d] = 0;
        for (std::int64_t j = 0; j < visible; ++j) {
          const double* v = &kv_rows[static_cast<std::size_t>((b * s.k_len + j) * at.row_k + at.v + kv * s.dim)];
          const std::int64_t plane = (first_sequence + b) * (head_begin + s.heads + heads_behind) + head_begin + h;
          const double keep = dropout_factor(s.p, (plane * seq_global + s.q_begin + i) * seq_global + s.k_begin + j);
          const double p = std::exp(scores[static_cast<std::size_t>(j)] - highest) / sum * keep;
          for (std::int64_t d = 0; d < s.dim; ++d) y[d] += p * v[d];
        }
        if (s.with_lse) out["lse"][static_cast<std::size_t>((b * s.heads + h) * s.q_len + i)] = highest + std::log(sum);
      }
}

OpCase attention_case(const Spec& s) {
  const Layout at = layout_of(s);
  OpCase op;
  op.name = "attention." + s.name;
  const GradientMode mode = s.with_lse ? GradientMode::overwritten : GradientMode::none;
  if (s.fused)
    op.inputs = {{.name = "qkv", .shape = {s.batch, s.q_len, at.row_q}, .gradient = mode, .scale = s.scale}};
  else
    op.inputs = {{.name = "q", .shape = {s.batch, s.q_len, at.row_q}, .gradient = mode, .scale = s.scale},
                 {.name = "kv", .shape = {s.batch, s.k_len, at.row_k}, .gradient = mode}};
  op.outputs = {{.name = "out", .shape = {s.batch, s.q_len, s.heads, s.dim}}};
  if (s.with_lse)
    op.outputs.push_back(
        {.name = "lse", .shape = {s.batch, s.heads, s.q_len}, .stored = Stored::f32, .differentiable = false});
  op.oracle = [s](const Values& in, Values& out) { oracle(s, in, out); };

  const auto part = [](auto view, std::int64_t batch, std::int64_t length, std::int64_t row, std::int64_t offset,
                       std::int64_t heads, std::int64_t dim) {
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const char, char>;
    view.data = static_cast<Byte*>(view.data) + offset * static_cast<std::int64_t>(size_of(view.dtype));
    view.shape = {batch, length, heads, dim};
    view.strides = {length * row, row, dim, 1};
    return view;
  };
  const auto q_of = [=](auto view) { return part(view, s.batch, s.q_len, at.row_q, at.q, s.heads, s.dim); };
  const auto k_of = [=](auto view) { return part(view, s.batch, s.k_len, at.row_k, at.k, s.kv_heads, s.dim); };
  const auto v_of = [=](auto view) { return part(view, s.batch, s.k_len, at.row_k, at.v, s.kv_heads, s.dim); };
  const std::string q_name = s.fused ? "qkv" : "q", kv_name = s.fused ? "qkv" : "kv";
  AttentionSpec spec;
  spec.causal = s.causal;
  spec.scale = 1 / std::sqrt(static_cast<float>(s.dim));
  spec.q_begin = s.q_begin;
  spec.k_begin = s.k_begin;
  spec.head_begin = head_begin;
  spec.heads_global = head_begin + s.heads + heads_behind;
  spec.seq_global = std::max(s.q_begin + s.q_len, s.k_begin + s.k_len) + 1;
  spec.dropout = dropout_spec(s.p, token_map(s.q_len, spec.seq_global, s.q_begin, first_sequence), 0);
  const auto with_key = [spec](Run& run) {
    AttentionSpec result = spec;
    result.dropout = run.with_key(spec.dropout);
    return result;
  };
  op.forward = [=](Run& run) {
    const View k = k_of(run.in(kv_name)), v = v_of(run.in(kv_name));
    run.kernels().attention.forward(run.exec(), q_of(run.in(q_name)), k, v, with_key(run), run.out("out"),
                                    s.with_lse ? run.out("lse") : MutView{});
  };
  if (!s.with_lse) return op;
  op.backward = [=](Run& run) {
    const MutView dkv = run.gradient(kv_name);
    run.kernels().attention.backward(run.exec(), q_of(run.in(q_name)), k_of(run.in(kv_name)), v_of(run.in(kv_name)),
                                     run.out("out"), run.out("lse"), run.cotangent("out"), with_key(run),
                                     q_of(run.gradient(q_name)), k_of(dkv), v_of(dkv));
  };
  return op;
}

// Sums over some keys, of which a row may have seen none, take up the same queries' over others. The sums are the tokens from
// `skip` on of longer ones.
OpCase merge_case(const std::string& name, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                  std::int64_t dim, std::int64_t skip) {
  const std::int64_t all = tokens + skip;
  OpCase op;
  op.name = "attention.merge_" + name;
  const auto lse_values = [&](std::int64_t count, std::int64_t unseen) {
    std::vector<double> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 4 * uniform(philox_word(philox_key(5, name), i)) - 2;
      if (static_cast<std::int64_t>(i) % 5 == unseen) values[i] = -INFINITY;
    }
    return values;
  };
  op.inputs = {{.name = "part", .shape = {batch, tokens, heads, dim}},
               {.name = "part_lse",
                .shape = {batch, heads, tokens},
                .stored = Stored::f32,
                .values = lse_values(batch * heads * tokens, 1)},
               {.name = "sum", .shape = {batch, all, heads, dim}, .stored = Stored::f32},
               {.name = "sum_lse",
                .shape = {batch, heads, all},
                .stored = Stored::f32,
                .values = lse_values(batch * heads * all, 3)}};
  op.outputs = {{.name = "out",
                 .shape = {batch, all, heads, dim},
                 .stored = Stored::f32,
                 .differentiable = false,
                 .in_place_of = "sum"},
                {.name = "lse",
                 .shape = {batch, heads, all},
                 .stored = Stored::f32,
                 .differentiable = false,
                 .in_place_of = "sum_lse"}};
  op.oracle = [=](const Values& in, Values& out) {
    out["out"] = in.at("sum");
    out["lse"] = in.at("sum_lse");
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t t = 0; t < tokens; ++t) {
          double& lse = out["lse"][static_cast<std::size_t>((b * heads + h) * all + skip + t)];
          const double added = in.at("part_lse")[static_cast<std::size_t>((b * heads + h) * tokens + t)];
          if (std::isinf(added)) continue;
          const double total = std::log(std::exp(lse) + std::exp(added));
          for (std::int64_t d = 0; d < dim; ++d) {
            double& sum = out["out"][static_cast<std::size_t>(((b * all + skip + t) * heads + h) * dim + d)];
            sum = sum * std::exp(lse - total) +
                  in.at("part")[static_cast<std::size_t>(((b * tokens + t) * heads + h) * dim + d)] *
                      std::exp(added - total);
          }
          lse = total;
        }
  };
  op.forward = [=](Run& run) {
    MutView out = run.out("out"), lse = run.out("lse");
    out.data = static_cast<float*>(out.data) + skip * heads * dim;
    out.shape[1] = tokens;
    lse.data = static_cast<float*>(lse.data) + skip;
    lse.shape[2] = tokens;
    run.kernels().attention.merge(run.exec(), run.in("part"), run.in("part_lse"), out, lse);
  };
  return op;
}

}  // namespace

std::vector<OpCase> attention_cases() {
  const std::vector<Spec> specs = {
      {"one", {1, 1, 1, 1, 1, 1}},
      {"tiny", {2, 3, 3, 2, 2, 4}},
      {"full", {1, 9, 9, 2, 2, 5}, {.causal = false}},
      {"fused", {2, 19, 19, 3, 3, 16}, {.fused = true}},
      {"fused_grouped", {2, 21, 21, 4, 2, 17}, {.fused = true}},
      {"one_key_value_head", {1, 18, 18, 5, 1, 8}},
      {"dropout", {2, 13, 13, 2, 1, 8}, {.p = 0.3f, .fused = true}},
      {"dropout_full", {1, 70, 67, 2, 2, 8}, {.causal = false, .p = 0.3f}},
      {"decode", {2, 1, 150, 4, 2, 20}, {.q_begin = 149}},
      {"decode_without_lse", {1, 1, 33, 2, 2, 64}, {.q_begin = 32, .with_lse = false}},
      {"continued", {1, 5, 40, 2, 1, 12}, {.q_begin = 35}},
      {"keys_of_an_earlier_rank", {1, 20, 30, 2, 2, 8}, {.q_begin = 100, .k_begin = 40}},
      {"some_see_no_key", {1, 30, 20, 2, 2, 8}, {.q_begin = 10, .k_begin = 21}},
      {"no_query_sees_a_key", {1, 4, 6, 1, 1, 8}, {.k_begin = 10}},
      {"dropout_with_offsets", {2, 11, 23, 2, 1, 8}, {.p = 0.3f, .q_begin = 17, .k_begin = 6}},
      {"one_tile", {1, 64, 64, 1, 1, 64}, {.fused = true}},
      {"tiles_and_one", {1, 129, 129, 2, 1, 32}, {.fused = true}},
      {"sharp", {1, 90, 90, 1, 1, 16}, {.scale = 8}},
      {"wide_head", {1, 40, 40, 1, 1, 256}},
      {"odd_wide_head", {1, 30, 75, 2, 2, 113}, {.causal = false}},
      {"head_of_512", {1, 40, 70, 1, 1, 512}, {.q_begin = 30}},
      {"head_of_1024", {1, 37, 37, 1, 1, 1024}, {.p = 0.3f, .fused = true}},
      {"odd_head_beyond_512", {1, 19, 35, 1, 1, 531}, {.causal = false}},
      {"more_keys_than_stay_packed", {1, 2, 1030, 2, 1, 256}, {.causal = false}},
      {"more_queries_than_stay_packed", {1, 520, 66, 2, 1, 225}, {.causal = false}},
      {"large", {1, 200, 200, 2, 1, 48}, {.p = 0.3f, .fused = true}},
      {"many", {6, 130, 130, 22, 11, 40}, {.p = 0.2f, .fused = true}},
      {"unaligned_tiles", {1, 150, 170, 3, 3, 24}, {.q_begin = 25, .k_begin = 7}},
  };
  std::vector<OpCase> cases;
  for (const Spec& spec : specs) cases.push_back(attention_case(spec));
  cases.push_back(merge_case("odd", 2, 3, 3, 5, 2));
  cases.push_back(merge_case("one", 1, 1, 1, 1, 0));
  cases.push_back(merge_case("wide", 2, 37, 2, 256, 4));
  return cases;
}

}  // namespace weft::test
