// The backward kernel that has the gradient of r, the relative positions' rows.
//
// B sequences, H heads, Tq queries, L distances, D head size.
#pragma once
#include "core/cuda/kernels/attention_backward.hpp"
#include "core/cuda/launch.hpp"

namespace weft::cuda::attention {

/// How the gradient of r is shared out: a block has a tile of distances of one head and the sequences of one part.
struct DistancePlan {
  std::int64_t tiles = 0, parts = 0, floats = 0;

  DistancePlan(const Problem& problem, const RelativePositions* positions, int rows) {
    constexpr std::int64_t enough_blocks = 2 * 132;
    if (!positions) return;
    const View& r = positions->r;
    tiles = ceil_div(r.shape[0], rows);
    parts = std::clamp<std::int64_t>(enough_blocks / std::max<std::int64_t>(1, tiles * problem.heads), 1,
                                     std::max<std::int64_t>(1, problem.batch));
    floats = parts * r.numel();
  }
};

/// dr_n = scale·Σ_b Σ_i dS_{i,i−n}·(q_i + v). A tile has distances (rows) against queries (columns), which meet keys from a
/// band: its products with the queries and with dout go by way of shared memory, one after the other.
template <class T, class P>
struct DistanceGradients {
  static constexpr int threads = P::threads;
  static_assert(P::rows == P::cols && Band<P>::chunks == 2);
  using Keep = KeepBits<P::cols, 2 * P::cols>;

  Inputs<T> in;
  Positions<T> places;
  DistancePlan plan;
  Operand<float> partial;  // [parts, L, H, D]

  static std::size_t shared_bytes(const Problem& problem) {
    const std::size_t floats =
        2 * P::resident_floats + P::score_floats + P::stage_floats + Band<P>::floats + 2 * P::cols;
    return floats * sizeof(float) + (problem.dropout.key ? Keep::bytes : 0);
  }

  /// s[distance][query] += the band of `queries`, in shared memory, times `keys`.
  template <class Keys, class Next>
  WEFT_DEVICE static void add_band(const Block& block, Products<T, P>& products, const Band<P>& band,
                                   const float* queries, const Keys& keys, typename P::Scores& s, Next&& next) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      typename P::Scores g;
      products.scores(queries, keys(chunk), g, [&] {
        if (chunk == 0)
          products.fetch_for_scores(keys(1));
        else
          next();
      });
      band.put(products.place(), g, chunk);
    }
    block.sync();
    for_scores<P>(products.place(),
                  [&](int i, int j, int row, int col) { s[i][j] += band.at(col, col - row + P::rows - 1); });
    block.sync();
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    const Problem& problem = in.problem;
    float* distances = block.shared<float>();
    float* queries = distances + P::resident_floats;
    float* gradients = queries + P::resident_floats;
    float* stage = gradients + P::score_floats;
    const Band<P> band{stage + P::stage_floats};
    float* lse2 = band.planes + Band<P>::floats;
    float* delta = lse2 + P::cols;
    float* bits = delta + P::cols;

    const std::int64_t head = block.index() % problem.heads, rest = block.index() / problem.heads;
    const std::int64_t tile = rest % plan.tiles, part = rest / plan.tiles, kv_head = head / problem.group();
    const std::int64_t row0 = tile * P::rows, distance0 = places.first + row0;
    const float scale2 = problem.scale * log2_e;

    Products<T, P> products(block, stage);
    const Place<P>& place = products.place();
    products.load_resident(places.distances(head, distance0, P::rows), scale2, distances);
    typename P::Sums sums;
    clear<P>(sums);

    const std::int64_t end = problem.batch * (part + 1) / plan.parts;
    for (std::int64_t batch = problem.batch * part / plan.parts; batch < end; ++batch)
      for (std::int64_t q0 = 0; q0 < problem.q_len; q0 += P::cols) {
        // Query i and distance n meet at key first_key + P::rows − 1 + i − n.
        const std::int64_t first_key = problem.q_begin + q0 - problem.k_begin - distance0 - (P::rows - 1);
        if (first_key >= problem.k_len || first_key + 2 * P::cols - 1 <= 0) continue;
        const Rows<const T> q = in.queries(in.q, batch, head, q0, P::cols);
        const BiasedRows<const T> q_place = places.for_place(q, head);
        const auto keys_of = [&](const Operand<const T>& from) {
          return [&, first_key](int chunk) {
            return window(from, batch, kv_head, first_key + chunk * P::cols, problem.k_len, P::cols);
          };
        };
        const auto keys = keys_of(in.k), values = keys_of(in.v);
        const std::int64_t terms = (batch * problem.heads + head) * problem.q_len + q0;
        for_block(block, P::cols, [&](std::int64_t i) {
          lse2[i] = i < q.count ? in.terms.lse2[terms + i] : infinity;
          delta[i] = i < q.count ? in.terms.delta[terms + i] : 0.0f;
        });
        const std::int64_t kept_key = first_key < 0 ? 0 : first_key;
        Keep keep{};
        if (problem.dropout.key) keep = Keep::fill(block, problem, batch, head, q0, kept_key, bits);

        typename P::Scores s, dp;
        products.load_resident(places.for_content(q, head), scale2, queries);
        products.fetch_for_scores(q_place);
        products.scores(distances, q_place, s, [&] { products.fetch_for_scores(keys(0)); });
        add_band(block, products, band, queries, keys, s, [&] { products.fetch_for_scores(values(0)); });
        products.load_resident(in.queries(in.dout, batch, head, q0, P::cols), 1.0f, queries);
        for_scores<P>(place, [&](int i, int j, int, int) { dp[i][j] = 0; });
        add_band(block, products, band, queries, values, dp, [&] { products.fetch_for_sums(q_place); });

        for_scores<P>(place, [&](int i, int j, int row, int col) {
          const std::int64_t key = first_key + P::rows - 1 + col - row, distance = distance0 + row;
          const bool seen = key >= 0 && key < problem.k_len && (!problem.causal || distance >= 0);
          const float p = seen ? exp2f(s[i][j] - lse2[col]) : 0.0f;
          float d = dp[i][j];
          if (problem.dropout.key && seen)
            d *= keep(col, static_cast<int>(key - kept_key)) ? problem.dropout.factor : 0.0f;
          gradients[row * P::score_stride + col] = p * (d - delta[col]);
        });
        products.sums(gradients, q_place, sums, [] {});
      }
    const int count = tile_size(places.count - row0, P::rows);
    write_sums<P>(place, sums, partial.rows(part, head, row0, count), [&](int) { return problem.scale; });
  }
};

/// dr from the parts.
template <class T>
struct DistanceSums {
  static constexpr int threads = 256;
  const float* partial;  // [parts, L, H, D]
  std::int64_t parts, count, heads, dim;
  T* dr;
  std::int64_t distance_stride, head_stride;

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t all = count * heads * dim;
    for_grid(block, all, [&](std::int64_t at) {
      float sum = 0;
      for (std::int64_t part = 0; part < parts; ++part) sum += partial[part * all + at];
      dr[at / (heads * dim) * distance_stride + at / dim % heads * head_stride + at % dim] = from_float<T>(sum);
    });
  }
};

/// Host. `scratch` has plan.floats.
template <class T, class P>
void distance_gradients(ExecContext& exec, const Inputs<T>& in, const Positions<T>& places, const DistancePlan& plan,
                        float* scratch, const MutView& dr) {
  const std::int64_t count = dr.shape[0], heads = dr.shape[1], dim = dr.shape[2];
  MutView partial(scratch, {plan.parts, count, heads, dim}, DType::f32);
  const DistanceGradients<T, P> kernel{in, places, plan, operand<float, 4>(partial)};
  launch(exec, plan.tiles * plan.parts * heads, kernel, kernel.shared_bytes(in.problem));
  const DistanceSums<T> sums{scratch, plan.parts, count, heads, dim, dr.as<T>(), dr.strides[0], dr.strides[1]};
  launch(exec, blocks_for<DistanceSums<T>>(count * heads * dim), sums);
}

}  // namespace weft::cuda::attention
