// Philox4x32-10 (core/base/philox.hpp) on vectors of blocks, and the dropout factors that it gives.
#pragma once
#include "core/cpu/vec/simd.hpp"

namespace weft::cpu::WEFT_ISA {

/// The product of the lower halves.
WEFT_INLINE VecU64 multiply_low(VecU64 a, VecU64 b) {
#if defined(__AVX512F__)
  return reinterpret_cast<VecU64>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<VecU64>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
  return reinterpret_cast<VecU64>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/// The upper half of each lane where the lower was; what the upper half holds then does not matter.
WEFT_INLINE VecU64 upper_half(VecU64 v) {
#if defined(__AVX512F__)
  // A shuffle, since shifts compete with the products for one port.
  return reinterpret_cast<VecU64>(_mm512_shuffle_epi32(reinterpret_cast<__m512i>(v), _MM_PERM_CDAB));
#elif defined(__AVX2__)
  return reinterpret_cast<VecU64>(_mm256_shuffle_epi32(reinterpret_cast<__m256i>(v), 0b10110001));
#else
  return v >> 32;
#endif
}

inline constexpr int philox_run = 4 * lanes;  ///< words a call of philox_words

/// The words of the blocks from `first` on, in order. Two vectors of blocks go through the rounds side by side, since
/// one alone would wait for its products.
WEFT_INLINE void philox_words(const DropoutRule& rule, std::uint64_t first, VecU (&words)[4]) {
#if defined(__AVX512F__)
  const VecU64 lane = {0, 1, 2, 3, 4, 5, 6, 7}, even = {0, 8, 1, 9, 2, 10, 3, 11}, odd = {4, 12, 5, 13, 6, 14, 7, 15};
#elif defined(__AVX2__)
  const VecU64 lane = {0, 1, 2, 3}, even = {0, 4, 1, 5}, odd = {2, 6, 3, 7};
#else
  const VecU64 lane = {0, 1}, even = {0, 2}, odd = {1, 3};
#endif
  const VecU64 m0 = VecU64{} + 0xD2511F53u, m1 = VecU64{} + 0xCD9E8D57u;
  // Only the lower half of each lane counts until the end; the upper halves hold what is left over.
  VecU64 c0[2] = {lane + first, lane + (first + lanes / 2)};
  VecU64 c1[2] = {c0[0] >> 32, c0[1] >> 32}, c2[2] = {}, c3[2] = {};
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const VecU64 p0[2] = {multiply_low(c0[0], m0), multiply_low(c0[1], m0)};
    const VecU64 p1[2] = {multiply_low(c2[0], m1), multiply_low(c2[1], m1)};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      c0[i] = upper_half(p1[i]) ^ c1[i] ^ (VecU64{} + rule.round_keys[2 * round]);
      c1[i] = p1[i];
      c2[i] = upper_half(p0[i]) ^ c3[i] ^ (VecU64{} + rule.round_keys[2 * round + 1]);
      c3[i] = p0[i];
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const VecU64 a = (c0[i] & 0xffffffffu) | (c1[i] << 32), b = (c2[i] & 0xffffffffu) | (c3[i] << 32);
    words[2 * i] = reinterpret_cast<VecU>(__builtin_shuffle(a, b, even));
    words[2 * i + 1] = reinterpret_cast<VecU>(__builtin_shuffle(a, b, odd));
  }
}

inline constexpr int dropout_run = 256;  ///< elements a call of dropout_factors

/// Room for the factors of a run that starts anywhere in a block.
struct DropoutRun {
  alignas(64) float factors[dropout_run + 4 + philox_run];
};

/// The factors of `count` <= dropout_run elements from global index `index` on.
inline const float* dropout_factors(const DropoutRule& rule, std::uint64_t index, std::int64_t count, DropoutRun& run) {
  const VecU threshold = VecU{} + rule.threshold;
  const Vec factor = splat(rule.factor);
  const std::int64_t skip = static_cast<std::int64_t>(index % 4);
  std::uint64_t block = index / 4;
  // Whole vectors, so that a tail reads nothing that was not written.
  const std::int64_t needed = skip + round_up(count, lanes);
  for (std::int64_t done = 0; done < needed; done += philox_run, block += philox_run / 4) {
    VecU words[4];
    philox_words(rule, block, words);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store(run.factors + done + i * lanes, words[i] >= threshold ? factor : Vec{});
  }
  return run.factors + skip;
}

/// weft::TokenMap's position and global_row, and weft::RowShare's row.
inline std::int64_t token_position(const DropoutArgs& rows, std::int64_t token) {
  return token < rows.first_length ? rows.begin[0] + token : rows.begin[1] + token - rows.first_length;
}
inline std::int64_t shared_row(const DropoutArgs& rows, std::int64_t row) {
  return rows.share_run == 0 ? row : row / rows.share_run * rows.share_stride + rows.share_begin + row % rows.share_run;
}
inline std::uint64_t dropout_index(const DropoutArgs& dropout, std::int64_t local_row, std::int64_t col) {
  const std::int64_t row = shared_row(dropout, local_row);
  const std::int64_t global_row = (dropout.first_sequence + row / dropout.seq_local) * dropout.seq_global +
                                  token_position(dropout, row % dropout.seq_local);
  return static_cast<std::uint64_t>(global_row * dropout.cols_global + dropout.col_begin + col);
}

/// Calls body(i, n, factor) for the vectors of one row's columns [begin, end).
template <class Body>
WEFT_INLINE void for_dropout(const DropoutArgs& dropout, std::int64_t row, std::int64_t begin, std::int64_t end,
                             Body&& body) {
  DropoutRun run;
  for (std::int64_t col = begin; col < end; col += dropout_run) {
    const std::int64_t count = smaller(dropout_run, end - col);
    const float* factors = dropout_factors(dropout.rule, dropout_index(dropout, row, col), count, run);
    for_vectors(0, count, [&](std::int64_t i, auto n) { body(col + i, n, load(factors + i)); });
  }
}

}  // namespace weft::cpu::WEFT_ISA
