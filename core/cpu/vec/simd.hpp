// Vectors of f32 of this instruction set's width, and the few operations on them that the kernels are written in.
// Everything here has a copy in each instruction set's namespace; see kernels.hpp.
#pragma once
#include <cstdint>

#if defined(__x86_64__)
// GCC 12 takes the undefined vectors inside its own intrinsics for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "core/cpu/vec/kernels.hpp"

#define WEFT_INLINE [[gnu::always_inline]] inline

namespace weft::cpu::WEFT_ISA {

#if defined(__AVX512F__)
inline constexpr int lanes = 16;
#elif defined(__AVX2__)
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif

using Vec [[gnu::vector_size(lanes * 4)]] = float;
using VecI [[gnu::vector_size(lanes * 4)]] = std::int32_t;
using VecU [[gnu::vector_size(lanes * 4)]] = std::uint32_t;
using VecU64 [[gnu::vector_size(lanes * 4)]] = std::uint64_t;
using VecD [[gnu::vector_size(lanes * 4)]] = double;
using VecU16 [[gnu::vector_size(lanes * 2)]] = std::uint16_t;
using HalfVec [[gnu::vector_size(lanes * 2)]] = float;

/// A stored bf16.
struct Half {
  std::uint16_t bits;
};

WEFT_INLINE Vec splat(float value) { return value - Vec{}; }
WEFT_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
WEFT_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
WEFT_INLINE std::int64_t round_up(std::int64_t a, std::int64_t to) { return (a + to - 1) / to * to; }

WEFT_INLINE VecI bits_of(Vec v) { return reinterpret_cast<VecI>(v); }
WEFT_INLINE Vec floats_of(VecI v) { return reinterpret_cast<Vec>(v); }

WEFT_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
  return reinterpret_cast<Vec>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}

WEFT_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }

WEFT_INLINE Vec sqrt(Vec v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_sqrt_ps(reinterpret_cast<__m512>(v)));
#else
  for (int i = 0; i < lanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

/// The first and the second half of the lanes.
WEFT_INLINE void to_double(Vec v, VecD& low, VecD& high) {
  HalfVec halves[2];
  __builtin_memcpy(halves, &v, sizeof v);
  low = __builtin_convertvector(halves[0], VecD);
  high = __builtin_convertvector(halves[1], VecD);
}

WEFT_INLINE float sum(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
#else
  float total = 0;
  for (int step = lanes / 2; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) v[i] += v[i + step];
  total += v[0];
  return total;
#endif
}

WEFT_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
WEFT_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

WEFT_INLINE Vec widen(VecU16 v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(reinterpret_cast<VecU>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(v))) << 16);
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(reinterpret_cast<VecU>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v))) << 16);
#else
  return reinterpret_cast<Vec>(__builtin_convertvector(v, VecU) << 16);
#endif
}

/// Round to nearest, ties to even; a NaN stays one.
WEFT_INLINE VecU16 narrow(Vec v) {
  const VecU word = reinterpret_cast<VecU>(v);
  const VecU rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  const VecU result = v == v ? rounded : (word >> 16) | 0x40u;
#if defined(__AVX512F__)
  return reinterpret_cast<VecU16>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(result)));
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi32(reinterpret_cast<__m256i>(result), reinterpret_cast<__m256i>(result));
  return reinterpret_cast<VecU16>(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0b1000)));
#else
  return __builtin_convertvector(result, VecU16);
#endif
}

WEFT_INLINE Vec load(const Half* p) {
  VecU16 v;
  __builtin_memcpy(&v, p, sizeof v);
  return widen(v);
}
WEFT_INLINE void store(Half* p, Vec v) {
  const VecU16 h = narrow(v);
  __builtin_memcpy(p, &h, sizeof h);
}

/// The first n < lanes elements; the others are 0.
WEFT_INLINE Vec load_part(const float* p, std::int64_t n) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p));
#else
  Vec v{};
  __builtin_memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
#endif
}
WEFT_INLINE void store_part(float* p, std::int64_t n, Vec v) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), reinterpret_cast<__m512>(v));
#else
  __builtin_memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
#endif
}
WEFT_INLINE Vec load_part(const Half* p, std::int64_t n) {
#if defined(__AVX512F__)
  return widen(reinterpret_cast<VecU16>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p)));
#else
  VecU16 v{};
  __builtin_memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(Half));
  return widen(v);
#endif
}
WEFT_INLINE void store_part(Half* p, std::int64_t n, Vec v) {
  const VecU16 h = narrow(v);
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1u), reinterpret_cast<__m256i>(h));
#else
  __builtin_memcpy(p, &h, static_cast<std::size_t>(n) * sizeof(Half));
#endif
}

/// The value as it would be read back after a store.
WEFT_INLINE Vec rounded_to(Vec v, const float*) { return v; }
WEFT_INLINE Vec rounded_to(Vec v, const Half*) { return widen(narrow(v)); }

WEFT_INLINE float load_one(const float* p) { return *p; }
WEFT_INLINE float load_one(const Half* p) { return load_part(p, 1)[0]; }

/// Calls body(i, n) for runs of n <= lanes elements of [begin, end); n is `lanes` at compile time but for the last run.
struct Whole {
  constexpr operator std::int64_t() const { return lanes; }
};
template <class T>
WEFT_INLINE Vec load_n(const T* p, Whole) {
  return load(p);
}
template <class T>
WEFT_INLINE Vec load_n(const T* p, std::int64_t n) {
  return load_part(p, n);
}
template <class T>
WEFT_INLINE void store_n(T* p, Whole, Vec v) {
  store(p, v);
}
template <class T>
WEFT_INLINE void store_n(T* p, std::int64_t n, Vec v) {
  store_part(p, n, v);
}

template <class Body>
WEFT_INLINE void for_vectors(std::int64_t begin, std::int64_t end, Body&& body) {
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(i, Whole{});
  if (i < end) body(i, end - i);
}

/// 2^x for x < 127: 2^n·2^r with |r| <= 1/2, a minimax polynomial of relative error 2e-9. Below −126 the result is 0: a
/// denormal number would cost an assist here and in all that it is multiplied with. NaN stays NaN.
WEFT_INLINE Vec exp2(Vec x) {
  const Vec low = splat(-126.0f);
  const Vec clamped = max(low, x);
#if defined(__AVX512F__)
  const Vec n = reinterpret_cast<Vec>(
      _mm512_roundscale_ps(reinterpret_cast<__m512>(clamped), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  const Vec magic = splat(12582912.0f);  // 1.5·2^23: adding it rounds to an integer held in the low bits
  const Vec shifted = clamped + magic, n = shifted - magic;
#endif
  const Vec r = clamped - n;
  Vec p = splat(1.535325778e-04f);
  p = fma(p, r, splat(1.339900353e-03f));
  p = fma(p, r, splat(9.618438602e-03f));
  p = fma(p, r, splat(5.550332163e-02f));
  p = fma(p, r, splat(2.402264790e-01f));
  p = fma(p, r, splat(6.931472030e-01f));
  p = fma(p, r, splat(1.0f));
#if defined(__AVX512F__)
  const __mmask16 normal = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(low), _CMP_NLT_UQ);
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(normal, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const VecU power = (reinterpret_cast<VecU>(shifted) << 23) + (127u << 23);
  return x < low ? Vec{} : p * reinterpret_cast<Vec>(power);
#endif
}

/// Natural logarithm of positive normal numbers to about 1 ulp, by the series of 2·artanh((m−1)/(m+1)).
WEFT_INLINE Vec log(Vec x) {
  // Of √½, so that m lies in [√½, √2).
  const VecI word = reinterpret_cast<VecI>(reinterpret_cast<VecU>(x) - 0x3f3504f3u);
  const Vec e = __builtin_convertvector(word >> 23, Vec);
  const Vec m = floats_of((word & 0x007fffff) + 0x3f3504f3);
  const Vec s = (m - 1.0f) / (m + 1.0f), z = s * s;
  Vec p = splat(2.0f / 9);
  p = fma(p, z, splat(2.0f / 7));
  p = fma(p, z, splat(2.0f / 5));
  p = fma(p, z, splat(2.0f / 3));
  p = fma(p, z, splat(2.0f));
  return fma(e, splat(0.693147180559945f), p * s);
}

/// Interleave the lower (or upper) halves: a0 b0 a1 b1 …
WEFT_INLINE Vec interleave_low(Vec a, Vec b) {
#if defined(__AVX512F__)
  return __builtin_shuffle(a, b, VecI{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
#elif defined(__AVX2__)
  return __builtin_shuffle(a, b, VecI{0, 8, 1, 9, 2, 10, 3, 11});
#else
  return __builtin_shuffle(a, b, VecI{0, 4, 1, 5});
#endif
}
WEFT_INLINE Vec interleave_high(Vec a, Vec b) {
#if defined(__AVX512F__)
  return __builtin_shuffle(a, b, VecI{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
#elif defined(__AVX2__)
  return __builtin_shuffle(a, b, VecI{4, 12, 5, 13, 6, 14, 7, 15});
#else
  return __builtin_shuffle(a, b, VecI{2, 6, 3, 7});
#endif
}

/// Transposes a square of lanes × lanes by log2(lanes) perfect shuffles.
WEFT_INLINE void transpose(Vec (&rows)[lanes]) {
#pragma GCC unroll 4
  for (int stage = 1; stage < lanes; stage *= 2) {
    Vec next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + lanes / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + lanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) rows[i] = next[i];
  }
}

}  // namespace weft::cpu::WEFT_ISA
