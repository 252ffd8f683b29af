// Attention forward with the online softmax (Milakov & Gimelshein 2018; Dao et al. 2022).
#include "core/cpu/vec/attention_relative.hpp"
#include "core/cpu/vec/functions.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

constexpr std::int64_t resident_floats = 1 << 18;  // of packed keys, and as many of values

struct Buffers {
  float *query, *score, *out, *factor, *keys, *values;
  float *place, *distances;  // with relative positions: queries for their distances, the tile pair's band
  bool resident;             // whether all keys are packed once, or tile by tile again for each query tile

  Buffers(const AttentionArgs& a, const AttentionShape& s, Arena& arena) {
    query = arena.take(a.head_dim * tile);
    score = arena.take(tile * tile);
    out = arena.take(tile * s.padded_dim);
    factor = arena.take(a.dropout ? tile * tile : 0);
    place = arena.take(a.r ? a.head_dim * tile : 0);
    distances = arena.take(a.r ? a.head_dim * band_stride : 0);
    resident = s.k_tiles * tile * s.padded_dim <= resident_floats;
    const std::int64_t packed = (resident ? s.k_tiles : 1) * tile * s.padded_dim;
    keys = arena.take(packed);
    values = arena.take(packed);
  }
};

// The running maximum (of scores times scale·log2 e), the sum and the factor for what was summed before.
struct Softmax {
  alignas(64) float highest[tile], sum[tile], rescale[tile];
};

constexpr float minus_infinity = -__builtin_inff();

// Turns a column of `vecs` vectors of scores into probabilities, and updates the softmax.
template <bool masked, bool dropout>
void softmax_column(const TilePair& pair, std::int64_t col, float scale2, float* score, const float* factor,
                    Softmax& softmax) {
  const Vec scale = splat(scale2), nothing = splat(minus_infinity);
  const VecI query = lane_numbers() + static_cast<std::int32_t>(col);
  std::int64_t keys = pair.keys;
  if (masked) keys = pair.visible_keys(col + lanes - 1);
  const Vec before = load(softmax.highest + col);
  Vec high[4] = {nothing, nothing, nothing, nothing};
  const auto visible = [&](std::int64_t key) {
    const Vec s = load(score + key * tile + col);
    return masked ? (query >= static_cast<std::int32_t>(key + pair.shift) ? s : nothing) : s;
  };
  std::int64_t key = 0;
  for (; key + 4 <= keys; key += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) high[i] = max(visible(key + i), high[i]);
  for (; key < keys; ++key) high[0] = max(visible(key), high[0]);
  const Vec highest = max(max(max(high[0], high[1]), max(high[2], high[3])) * scale, before);
  const Vec base = highest == nothing ? Vec{} : highest;
  const Vec rescale = exp2(before - base);
  Vec total[2] = {load(softmax.sum + col) * rescale, Vec{}};
  const auto probability = [&](std::int64_t at, Vec& sum) {
    const Vec p = exp2(fma(visible(at), scale, -base));
    sum += p;
    store(score + at * tile + col, dropout ? p * load(factor + at * tile + col) : p);
  };
  for (key = 0; key + 2 <= keys; key += 2) {
    probability(key, total[0]);
    probability(key + 1, total[1]);
  }
  if (key < keys) probability(key++, total[0]);
  for (; key < pair.keys; ++key) store(score + key * tile + col, Vec{});
  store(softmax.highest + col, highest);
  store(softmax.rescale + col, rescale);
  store(softmax.sum + col, total[0] + total[1]);
}

template <class T>
void query_tile(const AttentionArgs& a, const AttentionShape& s, const Buffers& to, std::int64_t b, std::int64_t head,
                std::int64_t q_tile, std::int64_t& packed_tiles) {
  const std::int64_t kv = head / s.group, q0 = q_tile * tile, queries = smaller(tile, a.q_len - q0);
  const T* q = static_cast<const T*>(a.q) + b * a.q_strides[0] + q0 * a.q_strides[1] + head * a.q_strides[2];
  const T* k = static_cast<const T*>(a.k) + b * a.k_strides[0] + kv * a.k_strides[2];
  const T* v = static_cast<const T*>(a.v) + b * a.v_strides[0] + kv * a.v_strides[2];
  pack_transposed(q, a.q_strides[1], queries, a.head_dim, to.query, bias_of(a, a.content_bias, head));
  if (a.r) pack_transposed(q, a.q_strides[1], queries, a.head_dim, to.place, bias_of(a, a.place_bias, head));
  Softmax softmax;
  for (std::int64_t i = 0; i < tile; i += lanes) {
    store(softmax.highest + i, splat(minus_infinity));
    store(softmax.sum + i, Vec{});
  }
  std::int64_t seen_tiles = 0;
  for (std::int64_t k_tile = 0; k_tile < s.k_tiles; ++k_tile, ++seen_tiles) {
    const TilePair pair = tile_pair(a, q_tile, k_tile);
    if (pair.visible_keys(queries - 1) == 0) break;
    const std::int64_t offset = to.resident ? k_tile * tile * s.padded_dim : 0;
    float *keys = to.keys + offset, *values = to.values + offset;
    if (!to.resident || k_tile >= packed_tiles) {
      pack_rows(k + k_tile * tile * a.k_strides[1], a.k_strides[1], pair.keys, a.head_dim, s.padded_dim, keys);
      pack_rows(v + k_tile * tile * a.v_strides[1], a.v_strides[1], pair.keys, a.head_dim, s.padded_dim, values);
      packed_tiles = k_tile + 1;
    }
    scores(pair, keys, s.padded_dim, to.query, a.head_dim, to.score);
    if (a.r) {
      pack_band<T>(a, head, tile_distance(a, q_tile, k_tile) - (tile - 1), to.distances);
      add_relative_scores(pair, to.place, to.distances, a.head_dim, to.score);
    }
    if (a.dropout) dropout_tile(a, b, head, q_tile, k_tile, pair, to.factor);
    const auto column = a.dropout ? (pair.masked() ? softmax_column<true, true> : softmax_column<false, true>)
                                  : (pair.masked() ? softmax_column<true, false> : softmax_column<false, false>);
    for (std::int64_t col = 0; col < queries; col += lanes)
      column(pair, col, a.scale * log2_e, to.score, to.factor, softmax);
    if (k_tile == 0)
      sum_over_keys<Into::replace>(pair, to.score, values, s.padded_dim, to.out);
    else
      sum_over_keys<Into::rescale>(pair, to.score, values, s.padded_dim, to.out, softmax.rescale);
  }

  T* out = static_cast<T*>(a.out_mut) + b * a.out_strides[0] + q0 * a.out_strides[1] + head * a.out_strides[2];
  for (std::int64_t i = 0; i < queries; ++i) {
    const float total = softmax.sum[i];
    const Vec inverse = splat(total == 0 ? 0 : 1 / total);
    T* row = out + i * a.out_strides[1];
    const float* from = to.out + i * s.padded_dim;
    if (seen_tiles == 0)
      for_vectors(0, a.head_dim, [&](std::int64_t c, auto n) { store_n(row + c, n, Vec{}); });
    else
      for_vectors(0, a.head_dim, [&](std::int64_t c, auto n) { store_n(row + c, n, load(from + c) * inverse); });
  }
  if (!a.lse_mut) return;
  float* lse = a.lse_mut + (b * a.heads + head) * a.q_len + q0;
  for_vectors(0, queries, [&](std::int64_t i, auto n) {
    const Vec total = load(softmax.sum + i);
    const Vec value = fma(load(softmax.highest + i), splat(1 / log2_e), log(total));
    store_n(lse + i, n, total == Vec{} ? splat(minus_infinity) : value);
  });
}

template <class T>
void run(const AttentionArgs& a, const AttentionTask& task) {
  const AttentionShape s(a);
  Arena arena{static_cast<char*>(task.scratch)};
  const Buffers buffers(a, s, arena);
  const std::int64_t b = task.pair / a.kv_heads, kv = task.pair % a.kv_heads;
  std::int64_t packed_tiles = 0;
  for (std::int64_t i = task.part; i < s.group * s.q_tiles; i += task.parts)
    query_tile<T>(a, s, buffers, b, kv * s.group + i / s.q_tiles, i % s.q_tiles, packed_tiles);
}

}  // namespace

std::size_t attention_forward_scratch(const AttentionArgs& args) {
  Arena arena{nullptr};
  const Buffers buffers(args, AttentionShape(args), arena);
  return reinterpret_cast<std::size_t>(arena.next);
}

void attention_forward(const AttentionArgs& args, const AttentionTask& task) {
  args.elem == Elem::f32 ? run<float>(args, task) : run<Half>(args, task);
}

}  // namespace weft::cpu::WEFT_ISA
