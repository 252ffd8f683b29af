// Attention with relative positions (section 3.3 of Dai et al. 2019): each r_n is an input of its own, so that a row of the
// wrong distance is seen in the output and in r's gradient.
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
  std::int64_t more = 0;  // distances of r beyond those that are needed, at both ends
  bool with_lse = true;   // without it there is no backward
  Write write = Write::overwrite;
  double scale = 1;  // of queries
};

struct Spec : Sizes, Options {
  std::string name;
  Spec(std::string name_, Sizes sizes, Options options = {}) : Sizes(sizes), Options(options), name(std::move(name_)) {}

  std::int64_t last_distance() const { return std::max<std::int64_t>(0, q_begin + q_len - 1 - k_begin) + more; }
  std::int64_t first_distance() const {
    const std::int64_t least = q_begin - (k_begin + k_len - 1);
    return (causal ? std::max<std::int64_t>(0, least) : least) - more;
  }
  std::int64_t distances() const { return last_distance() - first_distance() + 1; }
  std::int64_t seq_global() const { return std::max(q_begin + q_len, k_begin + k_len) + 1; }
};

constexpr std::int64_t heads_behind = 1, head_begin = 2, first_sequence = 1;

void oracle(const Spec& s, const Values& in, Values& out) {
  const auto &q = in.at("q"), &kv = in.at("kv"), &r = in.at("r"), &u = in.at("u"), &v = in.at("v");
  const std::int64_t width = s.heads * s.dim, kv_width = s.kv_heads * s.dim;
  const double factor = 1 / std::sqrt(static_cast<double>(s.dim));
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t i = 0; i < s.q_len; ++i) {
        const std::int64_t at = h / (s.heads / s.kv_heads) * s.dim;
        const auto element = [](const std::vector<double>& from, std::int64_t index) {
          return from[static_cast<std::size_t>(index)];
        };
        double highest = -std::numeric_limits<double>::infinity(), sum = 0;
        std::vector<double> scores;
        for (std::int64_t j = 0; j < s.k_len; ++j) {
          const std::int64_t distance = s.q_begin + i - s.k_begin - j;
          if (s.causal && distance < 0) break;
          double score = 0;
          for (std::int64_t d = 0; d < s.dim; ++d) {
            const double query = element(q, (b * s.q_len + i) * width + h * s.dim + d);
            score += (query + element(u, h * s.dim + d)) * element(kv, (b * s.k_len + j) * 2 * kv_width + at + d);
            score += (query + element(v, h * s.dim + d)) *
                     element(r, (distance - s.first_distance()) * width + h * s.dim + d);
          }
          scores.push_back(score * factor);
          highest = std::max(highest, score * factor);
        }
        for (const double score : scores) sum += std::exp(score - highest);
        double* y = &out["out"][static_cast<std::size_t>((b * s.q_len + i) * width + h * s.dim)];
        for (std::size_t j = 0; j < scores.size(); ++j) {
          const auto key = static_cast<std::int64_t>(j);
          const std::int64_t plane = (first_sequence + b) * (head_begin + s.heads + heads_behind) + head_begin + h;
          const std::int64_t index = (plane * s.seq_global() + s.q_begin + i) * s.seq_global() + s.k_begin + key;
          const double p = std::exp(scores[j] - highest) / sum * dropout_factor(s.p, index);
          for (std::int64_t d = 0; d < s.dim; ++d)
            y[d] += p * element(kv, (b * s.k_len + key) * 2 * kv_width + kv_width + at + d);
        }
        if (s.with_lse) out["lse"][static_cast<std::size_t>((b * s.heads + h) * s.q_len + i)] = highest + std::log(sum);
      }
}

OpCase relative_case(const Spec& s) {
  const std::int64_t width = s.heads * s.dim, kv_width = s.kv_heads * s.dim;
  OpCase op;
  op.name = "attention.relative_" + s.name;
  const auto mode = [&](GradientMode gradient) { return s.with_lse ? gradient : GradientMode::none; };
  const GradientMode own = mode(GradientMode::overwritten),
                     bias = mode(s.write == Write::add ? GradientMode::added : GradientMode::overwritten);
  op.inputs = {{.name = "q", .shape = {s.batch, s.q_len, width}, .gradient = own, .scale = s.scale},
               {.name = "kv", .shape = {s.batch, s.k_len, 2 * kv_width}, .gradient = own},
               {.name = "r", .shape = {s.distances(), width}, .gradient = own},
               {.name = "u", .shape = {s.heads, s.dim}, .stored = Stored::f32, .gradient = bias},
               {.name = "v", .shape = {s.heads, s.dim}, .stored = Stored::f32, .gradient = bias}};
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
  const auto q_of = [=](auto view) { return part(view, s.batch, s.q_len, width, 0, s.heads, s.dim); };
  const auto k_of = [=](auto view) { return part(view, s.batch, s.k_len, 2 * kv_width, 0, s.kv_heads, s.dim); };
  const auto v_of = [=](auto view) { return part(view, s.batch, s.k_len, 2 * kv_width, kv_width, s.kv_heads, s.dim); };
  const auto r_of = [=](auto view) { return view.reshaped({s.distances(), s.heads, s.dim}); };
  const auto positions = [=](Run& run) {
    return RelativePositions{r_of(run.in("r")), s.first_distance(), run.in("u"), run.in("v")};
  };
  const auto spec_of = [=](Run& run) {
    AttentionSpec spec;
    spec.causal = s.causal;
    spec.scale = 1 / std::sqrt(static_cast<float>(s.dim));
    spec.q_begin = s.q_begin;
    spec.k_begin = s.k_begin;
    spec.head_begin = head_begin;
    spec.heads_global = head_begin + s.heads + heads_behind;
    spec.seq_global = s.seq_global();
    spec.dropout = run.with_key(dropout_spec(s.p, token_map(s.q_len, s.seq_global(), s.q_begin, first_sequence), 0));
    return spec;
  };
  op.forward = [=](Run& run) {
    const View kv = run.in("kv");
    run.kernels().attention.relative_forward(run.exec(), q_of(run.in("q")), k_of(kv), v_of(kv), positions(run),
                                             spec_of(run), run.out("out"), s.with_lse ? run.out("lse") : MutView{});
  };
  if (!s.with_lse) return op;
  op.backward = [=](Run& run) {
    const View kv = run.in("kv");
    const MutView dkv = run.gradient("kv");
    run.kernels().attention.relative_backward(run.exec(), q_of(run.in("q")), k_of(kv), v_of(kv), positions(run),
                                              run.out("out"), run.out("lse"), run.cotangent("out"), spec_of(run),
                                              q_of(run.gradient("q")), k_of(dkv), v_of(dkv),
                                              {r_of(run.gradient("r")), run.gradient("u"), run.gradient("v"), s.write});
  };
  return op;
}

}  // namespace

std::vector<OpCase> relative_attention_cases() {
  const std::vector<Spec> specs = {
      {"one", {1, 1, 1, 1, 1, 1}},
      {"tiny", {2, 3, 3, 2, 2, 4}, {.write = Write::add}},
      {"full", {1, 9, 9, 2, 2, 5}, {.causal = false}},
      {"many_sequences", {9, 19, 19, 3, 3, 16}},
      {"one_token_and_memory", {2, 1, 150, 4, 4, 20}, {.q_begin = 149}},
      {"without_lse", {1, 1, 33, 2, 2, 64}, {.q_begin = 32, .with_lse = false}},
      {"memory", {1, 5, 40, 2, 2, 12}, {.q_begin = 35}},
      {"longer_memory", {2, 10, 75, 2, 2, 12}, {.q_begin = 65, .write = Write::add}},
      {"more_distances", {1, 20, 26, 2, 2, 8}, {.q_begin = 6, .more = 9}},
      {"grouped", {2, 70, 70, 4, 2, 12}},
      {"far_keys", {1, 20, 30, 2, 2, 8}, {.q_begin = 100, .k_begin = 40}},
      {"some_see_no_key", {1, 30, 20, 2, 2, 8}, {.q_begin = 10, .k_begin = 21}},
      {"no_query_sees_a_key", {1, 4, 6, 1, 1, 8}, {.k_begin = 10}},
      {"dropout", {2, 13, 13, 2, 1, 8}, {.p = 0.3f}},
      {"dropout_full", {1, 70, 67, 2, 2, 8}, {.causal = false, .p = 0.3f}},
      {"one_tile", {1, 64, 64, 1, 1, 64}},
      {"tiles_and_one", {1, 129, 129, 2, 2, 32}},
      {"full_tiles", {1, 130, 70, 1, 1, 16}, {.causal = false}},
      {"unaligned_tiles", {1, 150, 170, 3, 3, 24}, {.q_begin = 25, .k_begin = 7}},
      {"sharp", {1, 90, 90, 1, 1, 16}, {.scale = 4}},
      {"wide_head", {1, 40, 70, 1, 1, 256}, {.q_begin = 30}},
      {"odd_wide_head", {1, 30, 75, 2, 2, 113}, {.causal = false}},
      {"more_keys_than_stay_packed", {1, 2, 1030, 1, 1, 256}, {.causal = false}},
      {"more_queries_than_stay_packed", {1, 65, 8, 10, 1, 208}, {.causal = false}},
  };
  std::vector<OpCase> cases;
  for (const Spec& spec : specs) cases.push_back(relative_case(spec));
  return cases;
}

}  // namespace weft::test
