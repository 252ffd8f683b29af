// Attention backward on CUDA cores (Dao 2023), with probabilities recomputed from the log-sum-exp. With δ = Σ dout·out of
// a query, dS = P∘(dP − δ), dP = dout·Vᵀ, dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dout. One kernel has tiles of keys
// and sums dK and dV over the queries of all heads that share them, another has tiles of queries and sums dQ: no sum
// is shared by blocks, so each is taken in one order.
//
// B sequences, H heads, Hkv key-value heads, Tq queries, Tk keys, D head size.
#include "core/cuda/kernels/attention_tiles.hpp"
#include "core/cuda/launch.hpp"

namespace weft::cuda::attention {
namespace {

template <int dim>
using NarrowPlan =
    std::conditional_t<(dim <= 128), Plan<dim, 128, dim <= 96 ? 8 : 16, 64, 64>, Plan<dim, 256, 16, 64, 64>>;
// Two operands stay in shared memory, of which sm_80 has 163 KiB.
template <int dim>
using BackwardPlan = std::conditional_t<(dim <= 256), NarrowPlan<dim>, WidePlan<dim, dim <= 512 ? 32 : 64>>;

// What the backward pass knows of each query, f32[B, H, Tq]: its log-sum-exp times log2 e, +∞ where it sees no key,
// which makes all its probabilities 0; and δ.
struct QueryTerms {
  float *lse2, *delta;
};

template <class T>
struct Prepare {
  static constexpr int threads = 256, lanes = 8;  // of a row
  static constexpr int width = pack_width<T>;

  std::int64_t batch, q_len, heads;
  Operand<const T> out, dout;  // [B, Tq, H, D]
  const float* lse;            // [B, H, Tq]
  QueryTerms terms;

  WEFT_DEVICE void operator()(const Block& block) const {
    constexpr int block_rows = threads / lanes;
    const std::int64_t rows = batch * q_len * heads, step = block.blocks() * block_rows;
    const int lane = block.thread() % lanes;
    for (std::int64_t first = block.index() * block_rows; first < rows; first += step) {
      const std::int64_t row = first + block.thread() / lanes;
      const std::int64_t h = row % heads, t = row / heads % q_len, b = row / heads / q_len;
      float sum = 0;
      if (row < rows) {
        const Rows<const T> x = out.rows(b, h, t, 1), y = dout.rows(b, h, t, 1);
        if (x.packed && y.packed) {
          for (int col = lane * width; col < x.dim; col += lanes * width) {
            const auto left = load_pack<width>(x.data + col), right = load_pack<width>(y.data + col);
            WEFT_UNROLL
            for (int c = 0; c < width; ++c) sum += to_float(left.at[c]) * to_float(right.at[c]);
          }
        } else {
          for (int col = lane; col < x.dim; col += lanes) sum += to_float(x.data[col]) * to_float(y.data[col]);
        }
      }
      for (int mask = lanes / 2; mask > 0; mask /= 2) sum += block.shuffle_xor(sum, mask);
      if (row >= rows || lane != 0) continue;
      const std::int64_t at = (b * heads + h) * q_len + t;
      terms.lse2[at] = lse[at] == -infinity ? infinity : lse[at] * log2_e;
      terms.delta[at] = sum;
    }
  }
};

template <class T>
struct Inputs {
  Problem problem;
  Operand<const T> q, k, v, dout;  // [B, Tq, H, D], [B, Tk, Hkv, D], [B, Tk, Hkv, D], [B, Tq, H, D]
  QueryTerms terms;

  WEFT_DEVICE Rows<const T> queries(const Operand<const T>& from, std::int64_t b, std::int64_t h, std::int64_t q0,
                                    int most) const {
    return from.rows(b, h, q0, tile_size(problem.q_len - q0, most));
  }
  WEFT_DEVICE Rows<const T> keys(const Operand<const T>& from, std::int64_t b, std::int64_t kv, std::int64_t k0,
                                 int most) const {
    return from.rows(b, kv, k0, tile_size(problem.k_len - k0, most));
  }
};

// A tile of keys (rows) against the queries (columns) that see any of them.
template <class T, class P>
struct KeyGradients {
  static constexpr int threads = P::threads;
  using Keep = KeepBits<P::cols, P::rows>;

  Inputs<T> in;
  Operand<T> dk, dv;  // [B, Tk, Hkv, D]

  static std::size_t shared_bytes(const Problem& problem) {
    const std::size_t floats = 2 * P::resident_floats + 2 * P::score_floats + P::stage_floats + 2 * P::cols;
    return floats * sizeof(float) + (problem.dropout.key ? Keep::bytes : 0);
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    const Problem& problem = in.problem;
    float* keys = block.shared<float>();
    float* values = keys + P::resident_floats;
    float* probabilities = values + P::resident_floats;
    float* gradients = probabilities + P::score_floats;
    float* stage = gradients + P::score_floats;
    float* lse2 = stage + P::stage_floats;
    float* delta = lse2 + P::cols;
    float* bits = delta + P::cols;

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

    std::int64_t head = kv_head * problem.group(), q0 = first;
    if (head < end) products.fetch_for_scores(tile_of(in.dout, head, q0));
    while (head < end) {
      const Rows<const T> q = tile_of(in.q, head, q0), dout = tile_of(in.dout, head, q0);
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
      products.scores(keys, q, s, [&] { products.fetch_for_sums(q); });

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
template <class T, class P>
struct QueryGradients {
  static constexpr int threads = P::threads;
  using Keep = KeepBits<P::rows, P::cols>;

  Inputs<T> in;
  Operand<T> dq;  // [B, Tq, H, D]

  static std::size_t shared_bytes(const Problem& problem) {
    const std::size_t floats = 2 * P::resident_floats + P::score_floats + P::stage_floats;
    return floats * sizeof(float) + (problem.dropout.key ? Keep::bytes : 0);
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    const Problem& problem = in.problem;
    float* queries = block.shared<float>();
    float* douts = queries + P::resident_floats;
    float* gradients = douts + P::resident_floats;
    float* stage = gradients + P::score_floats;
    float* bits = stage + P::stage_floats;

    const QueryTile tile(problem, block, P::rows);
    const std::int64_t end = problem.visible_keys(tile.first + tile.count - 1), kv_head = tile.head / problem.group();
    const auto tile_of = [&](const Operand<const T>& from, std::int64_t k0) {
      return in.keys(from, tile.batch, kv_head, k0, P::cols);
    };

    Products<T, P> products(block, stage);
    const Place<P>& place = products.place();
    products.load_resident(in.q.rows(tile.batch, tile.head, tile.first, tile.count), problem.scale * log2_e, queries);
    products.load_resident(in.dout.rows(tile.batch, tile.head, tile.first, tile.count), 1.0f, douts);
    typename P::Sums sums;
    clear<P>(sums);
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
      products.scores(queries, k, s, [&] { products.fetch_for_sums(k); });

      const int diagonal = problem.diagonal(tile.first, k0, P::rows, P::cols);
      const bool masked = k.count < P::cols || diagonal < P::cols;
      for_scores<P>(place, [&](int i, int j, int row, int col) {
        const int at = row * P::score_stride + col;
        float p = exp2f(s[i][j] - lse2[i]);
        if (masked && (col >= k.count || col >= diagonal + row)) p = 0.0f;
        float dp = gradients[at];
        if (problem.dropout.key) dp *= keep(row, col) ? problem.dropout.factor : 0.0f;
        gradients[at] = p * (dp - delta[i]);
      });

      const std::int64_t next = k0 + P::cols;
      products.sums(gradients, k, sums, [&] {
        if (next < end) products.fetch_for_scores(tile_of(in.v, next));
      });
    }
    write_sums<P>(place, sums, dq.rows(tile.batch, tile.head, tile.first, tile.count),
                  [&](int) { return problem.scale; });
  }
};

}  // namespace

void backward_on_cores(ExecContext& exec, View q, View k, View v, View out, View lse, View dout,
                       const AttentionSpec& spec, MutView dq, MutView dk, MutView dv) {
  const Problem problem(q, k, spec);
  const std::int64_t rows = problem.batch * problem.heads * problem.q_len;
  auto* scratch = static_cast<float*>(exec.scratch(2 * static_cast<std::size_t>(rows) * sizeof(float)));
  const QueryTerms terms{scratch, scratch + rows};
  dispatch_float(q.dtype, [&]<class T>() {
    constexpr int width = pack_width<T>;
    using Kernel = Prepare<T>;
    const Kernel prepare{problem.batch,
                         problem.q_len,
                         problem.heads,
                         operand<T, width>(out),
                         operand<T, width>(dout),
                         static_cast<const float*>(lse.data),
                         terms};
    launch(exec, std::min(max_grid_blocks, ceil_div(rows, Kernel::threads / Kernel::lanes)), prepare);

    const Inputs<T> in{
        problem, operand<T, width>(q), operand<T, width>(k), operand<T, width>(v), operand<T, width>(dout), terms};
    dispatch_dim(q.shape[3], [&]<int dim>() {
      using P = BackwardPlan<dim>;
      const KeyGradients<T, P> by_keys{in, operand<T, 4>(dk), operand<T, 4>(dv)};
      launch(exec, ceil_div(problem.k_len, P::rows) * problem.batch * problem.kv_heads, by_keys,
             by_keys.shared_bytes(problem));
      const QueryGradients<T, P> by_queries{in, operand<T, 4>(dq)};
      launch(exec, ceil_div(problem.q_len, P::rows) * problem.batch * problem.heads, by_queries,
             by_queries.shared_bytes(problem));
    });
  });
}

}  // namespace weft::cuda::attention
