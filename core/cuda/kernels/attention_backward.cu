// Attention backward on CUDA cores (Dao 2023), with probabilities recomputed from the log-sum-exp. With δ = Σ dout·out of
// a query, dS = P∘(dP − δ), dP = dout·Vᵀ, dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dout. One kernel has tiles of keys
// and sums dK and dV over the queries of all heads that share them, another has tiles of queries and sums dQ: no sum
// is shared by blocks, so each is taken in one order. With relative positions both multiply the band of a tile again, the
// latter also sums dQ's second part, scale·Σ_j dS_ij·r_{i−j}, and attention_distances.hpp has the gradient of r.
//
// B sequences, H heads, Hkv key-value heads, Tq queries, Tk keys, D head size.
#include "core/cuda/kernels/attention_distances.hpp"
#include "core/cuda/launch.hpp"
#include "core/cuda/scratch.hpp"

namespace weft::cuda::attention {
namespace {

template <int dim>
using NarrowPlan =
    std::conditional_t<(dim <= 128), Plan<dim, 128, dim <= 96 ? 8 : 16, 64, 64>, Plan<dim, 256, 16, 64, 64>>;
// Two operands stay in shared memory, of which sm_80 has 163 KiB.
template <int dim>
using BackwardPlan = std::conditional_t<(dim <= 256), NarrowPlan<dim>, WidePlan<dim, dim <= 512 ? 32 : 64>>;

// With relative positions a block has a third operand and a band in shared memory.
template <int dim>
using RelativePlan = std::conditional_t<(dim <= 96), Plan<dim, 128, 8, 64, 64>, Plan<dim, 128, 16, 32, 32>>;

// A tile of keys (rows) against the queries (columns) that see any of them.
template <class T, class P, class Places>
struct KeyGradients {
  static constexpr int threads = P::threads;
  static constexpr bool relative = Places::relative;
  using Keep = KeepBits<P::cols, P::rows>;

  Inputs<T> in;
  Operand<T> dk, dv;  // [B, Tk, Hkv, D]
  Places places;

  static std::size_t shared_bytes(const Problem& problem) {
    std::size_t floats = 2 * P::resident_floats + 2 * P::score_floats + P::stage_floats + 2 * P::cols;
    if (relative) floats += P::resident_floats + Band<P>::floats;
    return floats * sizeof(float) + (problem.dropout.key ? Keep::bytes : 0);
  }
  static_assert(!relative || (P::rows == P::cols && Band<P>::chunks == 2));

  WEFT_DEVICE void operator()(const Block& block) const {
    const Problem& problem = in.problem;
    float* keys = block.shared<float>();
    float* values = keys + P::resident_floats;
    float* probabilities = values + P::resident_floats;
    float* gradients = probabilities + P::score_floats;
    float* stage = gradients + P::score_floats;
    float* lse2 = stage + P::stage_floats;
    float* delta = lse2 + P::cols;
    float* for_place = delta + P::cols;
    const Band<P> band{for_place + (relative ? P::resident_floats : 0)};
    float* bits = band.planes + (relative ? Band<P>::floats : 0);

    // The first keys are seen by most queries.
    const auto index = static_cast<unsigned>(block.index()), heads = static_cast<unsigned>(problem.kv_heads);
    const auto rest = index / heads, batches = static_cast<unsigned>(problem.batch);
    const std::int64_t kv_head = index % heads, batch = rest % batches;
    const std::int64_t k0 = static_cast<std::int64_t>(rest / batches) * P::rows;

    Products<T, P> products(block, stage);
    const Place<P>& place = products.place();
    products.load_resident(in.keys(in.k, batch, kv_head, k0, P::rows), problem.scale * log2_e, keys);
    products.load_resident(in.keys(in.v, batch, kv_head, k0, P::rows), 1.0f, values);
    typename P::Sums dk_sums, dv_sums;
    clear<P>(dk_sums);
    clear<P>(dv_sums);

    const std::int64_t first = problem.causal && k0 + problem.shift > 0 ? (k0 + problem.shift) / P::cols * P::cols : 0;
    const std::int64_t end = (kv_head + (first < problem.q_len ? 1 : 0)) * problem.group();
    const auto tile_of = [&](const Operand<const T>& from, std::int64_t head, std::int64_t q0) {
      return in.queries(from, batch, head, q0, P::cols);
    };

    const auto content = [&](const Rows<const T>& q, std::int64_t of_head) {
      if constexpr (relative)
        return places.for_content(q, of_head);
      else
        return q;
    };

    std::int64_t head = kv_head * problem.group(), q0 = first;
    if (head < end) products.fetch_for_scores(tile_of(in.dout, head, q0));
    while (head < end) {
      const auto q = content(tile_of(in.q, head, q0), head);
      const Rows<const T> dout = tile_of(in.dout, head, q0);
      const std::int64_t terms = (batch * problem.heads + head) * problem.q_len + q0;
      for_block(block, P::cols, [&](std::int64_t i) {
        lse2[i] = i < q.count ? in.terms.lse2[terms + i] : infinity;
        delta[i] = i < q.count ? in.terms.delta[terms + i] : 0.0f;
      });
      Keep keep{};
      if (problem.dropout.key) keep = Keep::fill(block, problem, batch, head, q0, k0, bits);

      // dP waits in shared memory, where each thread reads back its own, since registers are short.
      typename P::Scores s;
      products.scores(values, dout, s, [&] { products.fetch_for_scores(q); });
      for_scores<P>(place, [&](int i, int j, int row, int col) { gradients[row * P::score_stride + col] = s[i][j]; });
      if constexpr (relative) {
        const auto distances = [&](int chunk) {
          return places.distances(head, Band<P>::first_distance(problem, q0, k0) + chunk * P::cols, P::cols);
        };
        products.load_resident(places.for_place(q, head), problem.scale * log2_e, for_place);
        products.scores(keys, q, s, [&] { products.fetch_for_scores(distances(0)); });
        for (int chunk = 0; chunk < Band<P>::chunks; ++chunk) {
          typename P::Scores g;
          products.scores(for_place, distances(chunk), g, [&] {
            if (chunk + 1 < Band<P>::chunks)
              products.fetch_for_scores(distances(chunk + 1));
            else
              products.fetch_for_sums(q);
          });
          band.put(place, g, chunk);
        }
        block.sync();
        for_scores<P>(place, [&](int i, int j, int row, int col) { s[i][j] += band.at(col, col - row + P::rows - 1); });
      } else {
        products.scores(keys, q, s, [&] { products.fetch_for_sums(q); });
      }

      const int diagonal = problem.diagonal(q0, k0, P::cols, P::rows);
      const bool masked = diagonal < P::rows;
      for_scores<P>(place, [&](int i, int j, int row, int col) {
        const int at = row * P::score_stride + col;
        float p = exp2f(s[i][j] - lse2[col]);
        if (masked && row >= diagonal + col) p = 0.0f;
        float dp = gradients[at], dropped = p;
        if (problem.dropout.key) {
          const float factor = keep(col, row) ? problem.dropout.factor : 0.0f;
          dp *= factor;
          dropped *= factor;
        }
        probabilities[at] = dropped;
        gradients[at] = p * (dp - delta[col]);
      });

      q0 += P::cols;
      if (q0 >= problem.q_len) {
        q0 = first;
        ++head;
      }
      products.sums(gradients, q, dk_sums, [&] { products.fetch_for_sums(dout); });
      products.sums(probabilities, dout, dv_sums, [&] {
        if (head < end) products.fetch_for_scores(tile_of(in.dout, head, q0));
      });
    }

    const int count = tile_size(problem.k_len - k0, P::rows);
    write_sums<P>(place, dk_sums, dk.rows(batch, kv_head, k0, count), [&](int) { return problem.scale; });
    write_sums<P>(place, dv_sums, dv.rows(batch, kv_head, k0, count), [](int) { return 1.0f; });
  }
};

// A tile of queries (rows) against the keys (columns) that they see.
template <class T, class P, class Places>
struct QueryGradients {
  static constexpr int threads = P::threads;
  static constexpr bool relative = Places::relative;
  using Keep = KeepBits<P::rows, P::cols>;

  Inputs<T> in;
  Operand<T> dq;  // [B, Tq, H, D]
  Places places;
  float* bias_parts;  // with relative positions: [blocks, 2, D], a block's sums of dq/scale by k and by r

  static std::size_t shared_bytes(const Problem& problem) {
    std::size_t floats = 2 * P::resident_floats + P::score_floats + P::stage_floats;
    if (relative) floats += P::resident_floats + Band<P>::floats;
    return floats * sizeof(float) + (problem.dropout.key ? Keep::bytes : 0);
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    const Problem& problem = in.problem;
    float* queries = block.shared<float>();
    float* douts = queries + P::resident_floats;
    float* gradients = douts + P::resident_floats;
    float* stage = gradients + P::score_floats;
    float* for_place = stage + P::stage_floats;
    const Band<P> band{for_place + (relative ? P::resident_floats : 0)};
    float* bits = band.planes + (relative ? Band<P>::floats : 0);

    const QueryTile tile(problem, block, P::rows);
    const std::int64_t end = problem.visible_keys(tile.first + tile.count - 1), kv_head = tile.head / problem.group();
    const auto tile_of = [&](const Operand<const T>& from, std::int64_t k0) {
      return in.keys(from, tile.batch, kv_head, k0, P::cols);
    };

    Products<T, P> products(block, stage);
    const Place<P>& place = products.place();
    const Rows<const T> q = in.q.rows(tile.batch, tile.head, tile.first, tile.count);
    if constexpr (relative) {
      products.load_resident(places.for_content(q, tile.head), problem.scale * log2_e, queries);
      products.load_resident(places.for_place(q, tile.head), problem.scale * log2_e, for_place);
    } else {
      products.load_resident(q, problem.scale * log2_e, queries);
    }
    products.load_resident(in.dout.rows(tile.batch, tile.head, tile.first, tile.count), 1.0f, douts);
    typename P::Sums sums, place_sums;
    clear<P>(sums);
    clear<P>(place_sums);
    float lse2[P::patch_rows], delta[P::patch_rows];
    const std::int64_t terms = (tile.batch * problem.heads + tile.head) * problem.q_len + tile.first;
    WEFT_UNROLL
    for (int i = 0; i < P::patch_rows; ++i) {
      const int row = place.row + P::down * i;
      lse2[i] = row < tile.count ? in.terms.lse2[terms + row] : infinity;
      delta[i] = row < tile.count ? in.terms.delta[terms + row] : 0.0f;
    }

    if (end > 0) products.fetch_for_scores(tile_of(in.v, 0));
    for (std::int64_t k0 = 0; k0 < end; k0 += P::cols) {
      const Rows<const T> k = tile_of(in.k, k0);
      Keep keep{};
      if (problem.dropout.key) keep = Keep::fill(block, problem, tile.batch, tile.head, tile.first, k0, bits);
      typename P::Scores s;
      products.scores(douts, tile_of(in.v, k0), s, [&] { products.fetch_for_scores(k); });
      for_scores<P>(place, [&](int i, int j, int row, int col) { gradients[row * P::score_stride + col] = s[i][j]; });
      if constexpr (relative) {
        products.scores(queries, k, s, [&] { products.fetch_for_scores(chunk_of(tile, k0, 0)); });
        for (int chunk = 0; chunk < Band<P>::chunks; ++chunk) {
          typename P::Scores g;
          products.scores(for_place, chunk_of(tile, k0, chunk), g, [&] {
            if (chunk + 1 < Band<P>::chunks)
              products.fetch_for_scores(chunk_of(tile, k0, chunk + 1));
            else
              products.fetch_for_sums(k);
          });
          band.put(place, g, chunk);
        }
        block.sync();
        for_scores<P>(place, [&](int i, int j, int row, int col) { s[i][j] += band.at(row, row - col + P::cols - 1); });
        block.sync();
      } else {
        products.scores(queries, k, s, [&] { products.fetch_for_sums(k); });
      }

      const int diagonal = problem.diagonal(tile.first, k0, P::rows, P::cols);
      const bool masked = k.count < P::cols || diagonal < P::cols;
      for_scores<P>(place, [&](int i, int j, int row, int col) {
        const int at = row * P::score_stride + col;
        float p = exp2f(s[i][j] - lse2[i]);
        if (masked && (col >= k.count || col >= diagonal + row)) p = 0.0f;
        float dp = gradients[at];
        if (problem.dropout.key) dp *= keep(row, col) ? problem.dropout.factor : 0.0f;
        gradients[at] = p * (dp - delta[i]);
        if constexpr (relative) {
          // Of a row's two planes the tile has half the elements: these, and none that is a plane's width further on.
          const int element = row - col + P::cols - 1;
          band.at(row, element) = gradients[at];
          band.at(row, (element + P::cols) % (2 * P::cols)) = 0.0f;
        }
      });

      const std::int64_t next = k0 + P::cols;
      const auto fetch_next = [&] {
        if (next < end) products.fetch_for_scores(tile_of(in.v, next));
      };
      if constexpr (relative) {
        products.sums(gradients, k, sums, [&] { products.fetch_for_sums(chunk_of(tile, k0, 0)); });
        for (int chunk = 0; chunk < Band<P>::chunks; ++chunk)
          products.sums(band.plane(chunk), chunk_of(tile, k0, chunk), place_sums, [&] {
            if (chunk + 1 < Band<P>::chunks)
              products.fetch_for_sums(chunk_of(tile, k0, chunk + 1));
            else
              fetch_next();
          });
      } else {
        products.sums(gradients, k, sums, fetch_next);
      }
    }
    if constexpr (relative) {
      const int dim = static_cast<int>(q.dim);
      float* parts = bias_parts + block.index() * 2 * dim;
      sum_rows(block, place, sums, queries, parts, dim);
      sum_rows(block, place, place_sums, for_place, parts + dim, dim);
      WEFT_UNROLL
      for (int i = 0; i < P::patch_rows; ++i) {
        WEFT_UNROLL
        for (int c = 0; c < 4 * P::patch_packs; ++c) sums[i][c] += place_sums[i][c];
      }
    }
    write_sums<P>(place, sums, dq.rows(tile.batch, tile.head, tile.first, tile.count),
                  [&](int) { return problem.scale; });
  }

  WEFT_DEVICE WindowRows<const T> chunk_of(const QueryTile& tile, std::int64_t k0, int chunk) const {
    const std::int64_t first = Band<P>::first_distance(in.problem, tile.first, k0) + chunk * P::cols;
    return places.distances(tile.head, first, P::cols);
  }

  // to[dim] = Σ over the tile's rows of the block's sums, by way of the shared memory of an operand that is done with.
  WEFT_DEVICE static void sum_rows(const Block& block, const Place<P>& place, const typename P::Sums& sums,
                                   float* shared, float* to, int dim) {
    block.sync();
    const Rows<float> rows{shared, P::resident_stride, P::rows, P::dim, true};
    write_sums<P>(place, sums, rows, [](int) { return 1.0f; });
    block.sync();
    for_block(block, dim, [&](std::int64_t col) {
      float sum = 0;
      for (int row = 0; row < P::rows; ++row) sum += shared[row * P::resident_stride + col];
      to[col] = sum;
    });
  }
};

// The gradients of the biases from the blocks' parts.
struct BiasGradients {
  static constexpr int threads = 256;
  const float* parts;      // [tiles · B, H, 2, D], as QueryGradients has its blocks
  float *content, *place;  // [H, D]
  std::int64_t rows, heads, dim;
  float scale;
  bool add;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, heads * 2 * dim, [&](std::int64_t at) {
      const std::int64_t head = at / (2 * dim), col = at % dim;
      float sum = 0;
      for (std::int64_t row = 0; row < rows; ++row) sum += parts[row * heads * 2 * dim + at];
      float& to = (at / dim % 2 == 0 ? content : place)[head * dim + col];
      to = sum * scale + (add ? to : 0.0f);
    });
  }
};

}  // namespace

void backward_on_cores(ExecContext& exec, View q, View k, View v, View out, View lse, View dout,
                       const AttentionSpec& spec, MutView dq, MutView dk, MutView dv,
                       const RelativePositions* positions, const RelativeGradients* gradients) {
  const Problem problem(q, k, spec);
  const std::int64_t rows = problem.batch * problem.heads * problem.q_len, dim = q.shape[3];
  dispatch_float(q.dtype, [&]<class T>() {
    dispatch_dim(dim, [&]<int padded>() {
      const auto start = [&]<class P>(const auto& places) {
        using Places = std::remove_cvref_t<decltype(places)>;
        constexpr int width = pack_width<T>;
        const std::int64_t q_tiles = ceil_div(problem.q_len, P::rows), bias_rows = q_tiles * problem.batch;
        const DistancePlan distance_plan(problem, positions, P::rows);
        ScratchParts parts;
        const std::size_t lse_at = parts.add(static_cast<std::size_t>(rows) * sizeof(float));
        const std::size_t delta_at = parts.add(static_cast<std::size_t>(rows) * sizeof(float));
        const std::size_t bias_at = parts.add(
            Places::relative ? static_cast<std::size_t>(bias_rows * problem.heads * 2 * dim) * sizeof(float) : 0);
        const std::size_t distances_at = parts.add(static_cast<std::size_t>(distance_plan.floats) * sizeof(float));
        auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
        const auto floats_at = [&](std::size_t at) { return reinterpret_cast<float*>(scratch + at); };

        const QueryTerms terms{floats_at(lse_at), floats_at(delta_at)};
        using Preparation = Prepare<T>;
        const Preparation prepare{problem.batch,
                                  problem.q_len,
                                  problem.heads,
                                  operand<T, width>(out),
                                  operand<T, width>(dout),
                                  static_cast<const float*>(lse.data),
                                  terms};
        launch(exec, std::min(max_grid_blocks, ceil_div(rows, Preparation::threads / Preparation::lanes)), prepare);

        const Inputs<T> in{
            problem, operand<T, width>(q), operand<T, width>(k), operand<T, width>(v), operand<T, width>(dout), terms};
        const KeyGradients<T, P, Places> by_keys{in, operand<T, 4>(dk), operand<T, 4>(dv), places};
        launch(exec, ceil_div(problem.k_len, P::rows) * problem.batch * problem.kv_heads, by_keys,
               by_keys.shared_bytes(problem));
        const QueryGradients<T, P, Places> by_queries{in, operand<T, 4>(dq), places, floats_at(bias_at)};
        launch(exec, bias_rows * problem.heads, by_queries, by_queries.shared_bytes(problem));
        if constexpr (Places::relative) {
          const BiasGradients biases{floats_at(bias_at),
                                     static_cast<float*>(gradients->content_bias.data),
                                     static_cast<float*>(gradients->place_bias.data),
                                     bias_rows,
                                     problem.heads,
                                     dim,
                                     problem.scale,
                                     gradients->write == Write::add};
          launch(exec, blocks_for<BiasGradients>(problem.heads * 2 * dim), biases);
          distance_gradients<T, P>(exec, in, places, distance_plan, floats_at(distances_at), gradients->r);
        }
      };
      if (positions) {
        if constexpr (padded <= 256) start.template operator()<RelativePlan<padded>>(positions_of<T>(*positions));
      } else {
        start.template operator()<BackwardPlan<padded>>(NoPositions{});
      }
    });
  });
}

}  // namespace weft::cuda::attention
