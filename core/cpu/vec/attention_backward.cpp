// Attention backward (Dao et al. 2022, algorithm 4): probabilities are recomputed from the log-sum-exp, and with D_i =
// Σ dout·out, dS = P∘(dP − D), dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dout. A task walks its key tiles and keeps
// their dK and dV; dQ is summed per task and, where several share a head, over the tasks in order. With relative positions
// dQ has a second part, scale·Σ_j dS_ij·r_{i−j}, and dr_n = scale·Σ_i dS_{i,i−n}·(q_i + v) is summed as dQ is.
#include "core/cpu/vec/attention_relative.hpp"
#include "core/cpu/vec/functions.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

constexpr std::int64_t resident_floats = 1 << 18;  // of packed queries; each of four packings

// One packed query tile.
struct Queries {
  float *natural, *transposed, *dout, *dout_transposed, *lse, *dot;
  float *place, *place_transposed;  // with relative positions
};

struct Buffers {
  float *probability, *gradient, *factor, *keys, *values, *dkeys, *dvalues;
  float *band_of_pair, *distances;  // with relative positions: the tile pair's band, and each head's distances
  Queries first;
  std::int64_t stride;  // floats from one query tile to the next; 0 when they are packed again for each key tile

  Buffers(const AttentionArgs& a, const AttentionShape& s, Arena& arena) {
    const std::int64_t matrix = tile * s.padded_dim;
    probability = arena.take(tile * tile);
    gradient = arena.take(tile * tile + (a.r ? 2 * halo : 0)) + (a.r ? halo : 0);
    factor = arena.take(a.dropout ? tile * tile : 0);
    keys = arena.take(matrix);
    values = arena.take(matrix);
    dkeys = arena.take(matrix);
    dvalues = arena.take(matrix);
    const std::int64_t tiles = s.group * s.q_tiles;
    const bool resident = tiles * matrix <= resident_floats;
    const std::int64_t each = (a.r ? 6 : 4) * matrix + 2 * tile;
    float* base = arena.take(each * (resident ? tiles : 1));
    float* place = base + 4 * matrix + 2 * tile;
    first = {base,
             base + matrix,
             base + 2 * matrix,
             base + 3 * matrix,
             base + 4 * matrix,
             base + 4 * matrix + tile,
             a.r ? place : nullptr,
             a.r ? place + matrix : nullptr};
    stride = resident ? each : 0;
    band_of_pair = arena.take(a.r ? a.head_dim * band_stride : 0);
    distances = arena.take(a.r ? s.group * Distances(a, s).rows * s.padded_dim : 0);
  }
  Queries at(std::int64_t index) const {
    const std::int64_t skip = index * stride;
    Queries all{first.natural + skip, first.transposed + skip, first.dout + skip, first.dout_transposed + skip,
                first.lse + skip,     first.dot + skip,        nullptr,           nullptr};
    if (first.place) all.place = first.place + skip, all.place_transposed = first.place_transposed + skip;
    return all;
  }
};

template <class T>
void pack_queries(const AttentionArgs& a, const AttentionShape& s, std::int64_t b, std::int64_t head,
                  std::int64_t q_tile, const Queries& to) {
  const std::int64_t q0 = q_tile * tile, queries = smaller(tile, a.q_len - q0);
  const auto at = [&](const void* base, const std::int64_t* strides) {
    return static_cast<const T*>(base) + b * strides[0] + q0 * strides[1] + head * strides[2];
  };
  const T *q = at(a.q, a.q_strides), *dout = at(a.dout, a.dout_strides), *out = at(a.out, a.out_strides);
  const float *content = bias_of(a, a.content_bias, head), *place = bias_of(a, a.place_bias, head);
  pack_rows(q, a.q_strides[1], queries, a.head_dim, s.padded_dim, to.natural, content);
  pack_transposed(q, a.q_strides[1], queries, a.head_dim, to.transposed, content);
  if (a.r) {
    pack_rows(q, a.q_strides[1], queries, a.head_dim, s.padded_dim, to.place, place);
    pack_transposed(q, a.q_strides[1], queries, a.head_dim, to.place_transposed, place);
  }
  pack_rows(dout, a.dout_strides[1], queries, a.head_dim, s.padded_dim, to.dout);
  pack_transposed(dout, a.dout_strides[1], queries, a.head_dim, to.dout_transposed);
  const float* lse = a.lse + (b * a.heads + head) * a.q_len + q0;
  for (std::int64_t i = 0; i < tile; ++i) {
    // +∞ makes the probability 0: a query that sees no key, or one behind the last.
    const bool none = i >= queries || lse[i] == -__builtin_inff();
    to.lse[i] = none ? __builtin_inff() : lse[i] * log2_e;
    Vec total{};
    if (i < queries)
      for_vectors(0, a.head_dim, [&](std::int64_t c, auto n) {
        total = fma(load_n(dout + i * a.dout_strides[1] + c, n), load_n(out + i * a.out_strides[1] + c, n), total);
      });
    to.dot[i] = sum(total);
  }
}

// Scores and dP of a tile pair become P (with dropout's factors) and dS.
template <bool masked, bool dropout>
void probabilities(const TilePair& pair, float scale2, const Queries& queries, const Buffers& to) {
  const Vec scale = splat(scale2);
  for (std::int64_t col = 0; col < pair.queries; col += lanes) {
    const VecI query = lane_numbers() + static_cast<std::int32_t>(col);
    const std::int64_t keys = masked ? pair.visible_keys(col + lanes - 1) : pair.keys;
    const Vec lse = load(queries.lse + col), dot = load(queries.dot + col);
    const auto one = [&](std::int64_t at) {
      float *p_at = to.probability + at * tile + col, *d_at = to.gradient + at * tile + col;
      Vec p = exp2(fma(load(p_at), scale, -lse)), d = load(d_at);
      if (masked) p = query >= static_cast<std::int32_t>(at + pair.shift) ? p : Vec{};
      if (dropout) {
        const Vec factor = load(to.factor + at * tile + col);
        store(p_at, p * factor);
        d *= factor;
      } else {
        store(p_at, p);
      }
      store(d_at, p * (d - dot));
    };
    std::int64_t key = 0;
    for (; key + 2 <= keys; key += 2) {
      one(key);
      one(key + 1);
    }
    if (key < keys) one(key++);
    for (; key < pair.keys; ++key) {
      store(to.probability + key * tile + col, Vec{});
      store(to.gradient + key * tile + col, Vec{});
    }
  }
}

template <class T>
void write_rows(const float* from, std::int64_t rows, std::int64_t cols, std::int64_t padded, float scale, T* to,
                std::int64_t stride) {
  const Vec factor = splat(scale);
  for (std::int64_t row = 0; row < rows; ++row)
    for_vectors(0, cols, [&](std::int64_t c, auto n) {
      store_n(to + row * stride + c, n, load(from + row * padded + c) * factor);
    });
}

void clear(float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += lanes) store(to + i, Vec{});
}

template <class T>
void run(const AttentionArgs& a, const AttentionTask& task) {
  const AttentionShape s(a);
  Arena arena{static_cast<char*>(task.scratch)};
  const Buffers buffers(a, s, arena);
  const Distances distances(a, s);
  const std::int64_t b = task.pair / a.kv_heads, kv = task.pair % a.kv_heads, matrix = tile * s.padded_dim;
  const std::int64_t query_tiles = s.group * s.q_tiles, head_rows = distances.rows * s.padded_dim;
  clear(task.dq_partial, query_tiles * matrix * (a.r ? 2 : 1));
  if (a.r) {
    clear(buffers.gradient - halo, halo);
    clear(buffers.gradient + tile * tile, halo);
    for (std::int64_t g = 0; g < s.group; ++g)
      pack_distances<T>(a, distances, kv * s.group + g, s.padded_dim, buffers.distances + g * head_rows);
  }
  bool packed = false;
  for (std::int64_t k_tile = task.part; k_tile < s.k_tiles; k_tile += task.parts) {
    const std::int64_t k0 = k_tile * tile, keys = smaller(tile, a.k_len - k0);
    const auto at = [&](const void* base, const std::int64_t* strides) {
      return static_cast<const T*>(base) + b * strides[0] + k0 * strides[1] + kv * strides[2];
    };
    pack_rows(at(a.k, a.k_strides), a.k_strides[1], keys, a.head_dim, s.padded_dim, buffers.keys);
    pack_rows(at(a.v, a.v_strides), a.v_strides[1], keys, a.head_dim, s.padded_dim, buffers.values);
    clear(buffers.dkeys, matrix);
    clear(buffers.dvalues, matrix);
    for (std::int64_t i = 0; i < query_tiles; ++i) {
      const std::int64_t head = kv * s.group + i / s.q_tiles, q_tile = i % s.q_tiles;
      const TilePair pair = tile_pair(a, q_tile, k_tile);
      const Queries queries = buffers.at(i);
      const bool sees = pair.visible_keys(pair.queries - 1) > 0;
      // What the task's first key tile does not see, its later ones do not see either.
      if (sees && (buffers.stride == 0 || !packed)) pack_queries<T>(a, s, b, head, q_tile, queries);
      if (!sees) continue;
      scores(pair, buffers.keys, s.padded_dim, queries.transposed, a.head_dim, buffers.probability);
      if (a.r) {
        pack_band<T>(a, head, tile_distance(a, q_tile, k_tile) - (tile - 1), buffers.band_of_pair);
        add_relative_scores(pair, queries.place_transposed, buffers.band_of_pair, a.head_dim, buffers.probability);
      }
      scores(pair, buffers.values, s.padded_dim, queries.dout_transposed, a.head_dim, buffers.gradient);
      if (a.dropout) dropout_tile(a, b, head, q_tile, k_tile, pair, buffers.factor);
      const auto weigh = a.dropout ? (pair.masked() ? probabilities<true, true> : probabilities<false, true>)
                                   : (pair.masked() ? probabilities<true, false> : probabilities<false, false>);
      weigh(pair, a.scale * log2_e, queries, buffers);
      sum_over_queries(pair, buffers.probability, queries.dout, s.padded_dim, buffers.dvalues);
      sum_over_queries(pair, buffers.gradient, queries.natural, s.padded_dim, buffers.dkeys);
      sum_over_keys<Into::add>(pair, buffers.gradient, buffers.keys, s.padded_dim, task.dq_partial + i * matrix);
      if (!a.r) continue;
      if (pair.keys < tile) clear(buffers.gradient + pair.keys * tile, halo);
      const std::int64_t first = i / s.q_tiles * head_rows + distances.first_row(q_tile, k_tile) * s.padded_dim;
      sum_over_distances(pair, buffers.gradient, buffers.distances + first, s.padded_dim,
                         task.dq_partial + (query_tiles + i) * matrix);
      sum_along_distances(pair, buffers.gradient, queries.place, s.padded_dim, task.dr_partial + first);
    }
    packed = true;
    T* dk = static_cast<T*>(a.dk) + b * a.dk_strides[0] + k0 * a.dk_strides[1] + kv * a.dk_strides[2];
    T* dv = static_cast<T*>(a.dv) + b * a.dv_strides[0] + k0 * a.dv_strides[1] + kv * a.dv_strides[2];
    write_rows(buffers.dkeys, keys, a.head_dim, s.padded_dim, a.scale, dk, a.dk_strides[1]);
    write_rows(buffers.dvalues, keys, a.head_dim, s.padded_dim, 1.0f, dv, a.dv_strides[1]);
  }
}

template <class T>
void write_dq(const AttentionArgs& a, std::int64_t pair, const float* partials, std::int64_t parts, float* dbias) {
  const AttentionShape s(a);
  const std::int64_t b = pair / a.kv_heads, kv = pair % a.kv_heads;
  const std::int64_t by_r = s.group * s.q_tiles * tile * s.padded_dim, part_stride = (a.r ? 2 : 1) * by_r;
  const Vec scale = splat(a.scale);
  const auto over_parts = [&](const float* from) {
    Vec total = load(from);
    for (std::int64_t part = 1; part < parts; ++part) total += load(from + part * part_stride);
    return total;
  };
  const std::int64_t bias_dim = round_up(a.head_dim, 16);
  if (dbias) clear(dbias, s.group * 2 * bias_dim);
  for (std::int64_t g = 0; g < s.group; ++g)
    for (std::int64_t i = 0; i < a.q_len; ++i) {
      T* to = static_cast<T*>(a.dq) + b * a.dq_strides[0] + i * a.dq_strides[1] + (kv * s.group + g) * a.dq_strides[2];
      const float* from = partials + (g * s.q_tiles * tile + i) * s.padded_dim;
      for_vectors(0, a.head_dim, [&](std::int64_t c, auto n) {
        Vec total = over_parts(from + c);
        if (dbias) {
          float* sums = dbias + g * 2 * bias_dim + c;
          const Vec place = over_parts(from + by_r + c);
          store(sums, load(sums) + total);
          store(sums + bias_dim, load(sums + bias_dim) + place);
          total += place;
        }
        store_n(to + c, n, total * scale);
      });
    }
}

template <class T>
void write_dr(const AttentionArgs& a, std::int64_t head, const float* partials, std::int64_t stride,
              std::int64_t count) {
  const AttentionShape s(a);
  const Distances distances(a, s);
  const Vec scale = splat(a.scale);
  for (std::int64_t row = 0; row < a.r_len; ++row) {
    T* to = static_cast<T*>(a.dr) + row * a.dr_strides[0] + head * a.dr_strides[1];
    const std::int64_t at = distances.furthest - a.r_first - row;
    const bool there = at >= 0 && at < distances.rows;
    const float* from = partials + (head % s.group * distances.rows + (there ? at : 0)) * s.padded_dim;
    for_vectors(0, a.head_dim, [&](std::int64_t c, auto n) {
      Vec total{};
      for (std::int64_t i = 0; there && i < count; ++i) total += load(from + i * stride + c);
      store_n(to + c, n, total * scale);
    });
  }
}

}  // namespace

std::size_t attention_backward_scratch(const AttentionArgs& args) {
  Arena arena{nullptr};
  const Buffers buffers(args, AttentionShape(args), arena);
  return reinterpret_cast<std::size_t>(arena.next);
}

std::int64_t attention_dq_partial(const AttentionArgs& args) {
  const AttentionShape s(args);
  return s.group * s.q_tiles * tile * s.padded_dim * (args.r ? 2 : 1);
}

std::int64_t attention_dr_partial(const AttentionArgs& args) {
  const AttentionShape s(args);
  return s.group * Distances(args, s).rows * s.padded_dim;
}

void attention_backward(const AttentionArgs& args, const AttentionTask& task) {
  args.elem == Elem::f32 ? run<float>(args, task) : run<Half>(args, task);
}

void attention_dq(const AttentionArgs& args, std::int64_t pair, const float* partials, std::int64_t parts,
                  float* dbias) {
  args.elem == Elem::f32 ? write_dq<float>(args, pair, partials, parts, dbias)
                         : write_dq<Half>(args, pair, partials, parts, dbias);
}

void attention_dr(const AttentionArgs& args, std::int64_t head, const float* partials, std::int64_t stride,
                  std::int64_t count) {
  args.elem == Elem::f32 ? write_dr<float>(args, head, partials, stride, count)
                         : write_dr<Half>(args, head, partials, stride, count);
}

}  // namespace weft::cpu::WEFT_ISA
