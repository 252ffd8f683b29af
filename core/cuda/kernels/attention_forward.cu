// Attention forward on CUDA cores: FlashAttention-2 (Dao 2023). A block has a tile of queries of one head and walks over
// the keys that they see, with the online softmax in base 2. With relative positions, of the band of distances that a tile
// of scores needs all chunks but the first are the tile before's: one product a tile.
//
// B sequences, H heads, Hkv key-value heads, Tq queries, Tk keys, D head size.
#include "core/cuda/kernels/attention_relative.hpp"
#include "core/cuda/launch.hpp"

namespace weft::cuda::attention {
namespace {

// Tiles of 128 queries are the fastest while there are enough of them.
template <int dim, bool few_queries>
using NarrowPlan = std::conditional_t<(dim <= 96), Plan<dim, 128, 8, few_queries ? 64 : 128, 64>,
                                      Plan<dim, 128, 16, 64, dim == 128 ? 128 : 64>>;
template <int dim, bool few_queries>
using ForwardPlan = std::conditional_t<(dim <= 256), NarrowPlan<dim, few_queries>, WidePlan<dim, 64>>;
constexpr std::int64_t enough_blocks = 2 * 132;

// Both the queries' forms stay in shared memory, which bounds the tile.
template <int dim>
using RelativePlan = std::conditional_t<(dim <= 96), Plan<dim, 128, 8, 64, 64>, Plan<dim, 128, 16, 32, 64>>;

template <class T, class P, class Places>
struct Forward {
  static constexpr int threads = P::threads;
  static constexpr bool relative = Places::relative;
  using Keep = KeepBits<P::rows, P::cols>;

  Problem problem;
  Operand<const T> q, k, v;  // [B, Tq, H, D], [B, Tk, Hkv, D]
  Operand<T> out;            // [B, Tq, H, D]
  float* lse;                // [B, H, Tq] or null
  Places places;

  static std::size_t shared_bytes(const Problem& problem) {
    std::size_t floats = P::resident_floats + P::score_floats + P::stage_floats;
    if (relative) floats += P::resident_floats + Band<P>::floats;
    return floats * sizeof(float) + (problem.dropout.key ? Keep::bytes : 0);
  }

  struct Softmax {
    float highest[P::patch_rows], sum[P::patch_rows];  // of scores times log2 e; sums of this thread's columns alone
  };

  // Turns scores into probabilities and rescales what was summed with a lower maximum.
  WEFT_DEVICE static void advance(const Block& block, typename P::Scores& s, Softmax& softmax, typename P::Sums& sums) {
    WEFT_UNROLL
    for (int i = 0; i < P::patch_rows; ++i) {
      float highest = s[i][0];
      WEFT_UNROLL
      for (int j = 1; j < P::patch_cols; ++j) highest = Max{}(highest, s[i][j]);
      highest = Max{}(softmax.highest[i], reduce_row<P>(block, highest, Max{}));
      const float base = highest == -infinity ? 0.0f : highest;
      const float rescale = exp2f(softmax.highest[i] - base);
      softmax.highest[i] = highest;
      float sum = softmax.sum[i] * rescale;
      WEFT_UNROLL
      for (int j = 0; j < P::patch_cols; ++j) {
        s[i][j] = exp2f(s[i][j] - base);
        sum += s[i][j];
      }
      softmax.sum[i] = sum;
      WEFT_UNROLL
      for (int c = 0; c < 4 * P::patch_packs; ++c) sums[i][c] *= rescale;
    }
  }

  // s += (q + v)·r of the tile's distances. Chunk c of the tile from k0 on has the distances of chunk c − 1 of the tile
  // before, so planes go round.
  template <class Next>
  WEFT_DEVICE void add_positions(const Block& block, Products<T, P>& products, const float* queries,
                                 const Band<P>& band, const QueryTile& tile, std::int64_t k0, typename P::Scores& s,
                                 Next&& next) const {
    constexpr int chunks = Band<P>::chunks;
    const int turn = static_cast<int>(k0 / P::cols % chunks);
    const auto plane_of = [&](int chunk) { return (turn + chunks - chunk) % chunks; };
    for (int chunk = k0 == 0 ? chunks - 1 : 0; chunk >= 0; --chunk) {
      typename P::Scores g;
      products.scores(queries, chunk_of(tile, k0, chunk), g, [&] {
        if (chunk > 0)
          products.fetch_for_scores(chunk_of(tile, k0, chunk - 1));
        else
          next();
      });
      band.put(products.place(), g, plane_of(chunk));
    }
    block.sync();
    for_scores<P>(products.place(), [&](int i, int j, int row, int col) {
      const int element = row - col + P::cols - 1;
      s[i][j] += band.plane(plane_of(element / P::cols))[row * P::score_stride + element % P::cols];
    });
  }
  WEFT_DEVICE WindowRows<const T> chunk_of(const QueryTile& tile, std::int64_t k0, int chunk) const {
    const std::int64_t first = Band<P>::first_distance(problem, tile.first, k0) + chunk * P::cols;
    return places.distances(tile.head, first, P::cols);
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    float* resident = block.shared<float>();
    float* probabilities = resident + P::resident_floats;
    float* stage = probabilities + P::score_floats;
    float* for_place = stage + P::stage_floats;
    const Band<P> band{for_place + (relative ? P::resident_floats : 0)};
    float* bits = band.planes + (relative ? Band<P>::floats : 0);

    const QueryTile tile(problem, block, P::rows);
    const std::int64_t end = problem.visible_keys(tile.first + tile.count - 1), kv_head = tile.head / problem.group();
    const auto tile_of = [&](const Operand<const T>& from, std::int64_t k0) {
      return from.rows(tile.batch, kv_head, k0, tile_size(problem.k_len - k0, P::cols));
    };

    Products<T, P> products(block, stage);
    const Place<P>& place = products.place();
    const Rows<const T> queries = q.rows(tile.batch, tile.head, tile.first, tile.count);
    if constexpr (relative) {
      products.load_resident(places.for_content(queries, tile.head), problem.scale * log2_e, resident);
      products.load_resident(places.for_place(queries, tile.head), problem.scale * log2_e, for_place);
    } else {
      products.load_resident(queries, problem.scale * log2_e, resident);
    }
    typename P::Sums sums;
    clear<P>(sums);
    Softmax softmax;
    WEFT_UNROLL
    for (int i = 0; i < P::patch_rows; ++i) {
      softmax.highest[i] = -infinity;
      softmax.sum[i] = 0;
    }

    if (end > 0) products.fetch_for_scores(tile_of(k, 0));
    for (std::int64_t k0 = 0; k0 < end; k0 += P::cols) {
      Keep keep{};
      if (problem.dropout.key) keep = Keep::fill(block, problem, tile.batch, tile.head, tile.first, k0, bits);
      typename P::Scores s;
      const auto fetch_values = [&] { products.fetch_for_sums(tile_of(v, k0)); };
      if constexpr (relative) {
        products.scores(resident, tile_of(k, k0), s,
                        [&] { products.fetch_for_scores(chunk_of(tile, k0, k0 == 0 ? Band<P>::chunks - 1 : 0)); });
        add_positions(block, products, for_place, band, tile, k0, s, fetch_values);
      } else {
        products.scores(resident, tile_of(k, k0), s, fetch_values);
      }

      const int keys = tile_of(k, k0).count, diagonal = problem.diagonal(tile.first, k0, P::rows, P::cols);
      if (keys < P::cols || diagonal < P::cols)
        for_scores<P>(place, [&](int i, int j, int row, int col) {
          if (col >= keys || col >= diagonal + row) s[i][j] = -infinity;
        });
      advance(block, s, softmax, sums);
      if (problem.dropout.key)
        for_scores<P>(place, [&](int i, int j, int row, int col) {
          s[i][j] = keep(row, col) ? s[i][j] * problem.dropout.factor : 0.0f;
        });
      for_scores<P>(place,
                    [&](int i, int j, int row, int col) { probabilities[row * P::score_stride + col] = s[i][j]; });

      const std::int64_t next = k0 + P::cols;
      products.sums(probabilities, tile_of(v, k0), sums, [&] {
        if (next < end) products.fetch_for_scores(tile_of(k, next));
      });
    }

    WEFT_UNROLL
    for (int i = 0; i < P::patch_rows; ++i) softmax.sum[i] = reduce_row<P>(block, softmax.sum[i], Sum{});
    write_sums<P>(place, sums, out.rows(tile.batch, tile.head, tile.first, tile.count),
                  [&](int i) { return softmax.sum[i] > 0 ? 1.0f / softmax.sum[i] : 0.0f; });
    if (!lse || place.col != 0) return;
    float* lse_rows = lse + (tile.batch * problem.heads + tile.head) * problem.q_len + tile.first;
    WEFT_UNROLL
    for (int i = 0; i < P::patch_rows; ++i) {
      const int row = place.row + P::down * i;
      if (row < tile.count)
        lse_rows[row] = softmax.sum[i] > 0 ? softmax.highest[i] * (1.0f / log2_e) + logf(softmax.sum[i]) : -infinity;
    }
  }
};

}  // namespace

void forward_on_cores(ExecContext& exec, View q, View k, View v, const AttentionSpec& spec, MutView out, MutView lse,
                      const RelativePositions* positions) {
  const Problem problem(q, k, spec);
  const std::int64_t heads = problem.batch * problem.heads;
  const auto start = [&]<class T, class P>(const auto& places) {
    constexpr int width = pack_width<T>;
    const Forward<T, P, std::remove_cvref_t<decltype(places)>> kernel{problem,
                                                                      operand<T, width>(q),
                                                                      operand<T, width>(k),
                                                                      operand<T, width>(v),
                                                                      operand<T, 4>(out),
                                                                      static_cast<float*>(lse.data),
                                                                      places};
    launch(exec, ceil_div(problem.q_len, P::rows) * heads, kernel, kernel.shared_bytes(problem));
  };
  const bool few_queries = ceil_div(problem.q_len, 128) * heads < enough_blocks;
  dispatch_float(q.dtype, [&]<class T>() {
    dispatch_dim(q.shape[3], [&]<int dim>() {
      if (positions) {
        if constexpr (dim <= 256) start.template operator()<T, RelativePlan<dim>>(positions_of<T>(*positions));
      } else if (few_queries) {
        start.template operator()<T, ForwardPlan<dim, true>>(NoPositions{});
      } else {
        start.template operator()<T, ForwardPlan<dim, false>>(NoPositions{});
      }
    });
  });
}

}  // namespace weft::cuda::attention
