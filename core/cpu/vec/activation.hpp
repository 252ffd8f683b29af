// The sigmoid and what is made of it.
#pragma once
#include "core/cpu/vec/simd.hpp"

namespace weft::cpu::WEFT_ISA {

/// 1 / (1 + e^−x) to about 2 ulp for |x| < 87, beyond as at 87. e^−x is 2^n·e^r with |r| <= ln 2 / 2, a minimax
/// polynomial of relative error 3e-9.
WEFT_INLINE Vec sigmoid(Vec x) {
  const Vec high = splat(87.0f), minus_x = -x;
  const Vec above = max(-high, minus_x);
  const Vec clamped = above > high ? high : above;  // NaN stays NaN
  const Vec magic = splat(12582912.0f);             // 1.5·2^23: adding it rounds to an integer held in the low bits
  const Vec shifted = fma(clamped, splat(1.44269504088896341f), magic), n = shifted - magic;
  const Vec r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), clamped));
  Vec p = splat(1.3814466e-3f);
  p = fma(p, r, splat(8.3687805e-3f));
  p = fma(p, r, splat(4.1668394e-2f));
  p = fma(p, r, splat(1.66665201e-1f));
  p = fma(p, r, splat(0.49999993f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
#if defined(__AVX512F__)
  // Division is slow at this width; one step of Newton's takes the 14-bit guess to full precision.
  const Vec sum =
      1.0f + reinterpret_cast<Vec>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
  const Vec guess = reinterpret_cast<Vec>(_mm512_rcp14_ps(reinterpret_cast<__m512>(sum)));
  return fma(fma(-sum, guess, splat(1.0f)), guess, guess);
#else
  return 1.0f / (1.0f + p * floats_of((bits_of(shifted) << 23) + (127 << 23)));
#endif
}

/// To about 4 ulp: 2·sigmoid(2x) − 1, which near 0 would leave few right digits, and there a Taylor polynomial.
WEFT_INLINE Vec tanh(Vec x) {
  const Vec square = x * x;
  Vec p = splat(62.0f / 2835);
  p = fma(p, square, splat(-17.0f / 315));
  p = fma(p, square, splat(2.0f / 15));
  p = fma(p, square, splat(-1.0f / 3));
  const Vec small = fma(x * square, p, x), large = fma(splat(2.0f), sigmoid(x + x), splat(-1.0f));
  return square < splat(0.09f) ? small : large;
}

// tanh-form GELU: x/2·(1 + tanh u) = x·sigmoid(2u) with u = √(2/π)·(x + 0.044715·x³).
inline constexpr float gelu_scale = 1.59576912160573071f;  ///< 2·√(2/π)
inline constexpr float gelu_cube = 0.044715f;

WEFT_INLINE Vec gelu_of(Vec x) { return x * sigmoid(x * gelu_scale * fma(x * gelu_cube, x, splat(1.0f))); }

/// The derivative of gelu_of.
WEFT_INLINE Vec gelu_slope(Vec x) {
  const Vec square = x * x;
  const Vec s = sigmoid(x * gelu_scale * fma(square, splat(gelu_cube), splat(1.0f)));
  const Vec slope_of_2u = gelu_scale * fma(square, splat(3 * gelu_cube), splat(1.0f));
  return fma(x * s * (1.0f - s), slope_of_2u, s);
}

}  // namespace weft::cpu::WEFT_ISA
