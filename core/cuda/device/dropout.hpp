// Dropout's factors in kernels; see core/kernels/dropout.hpp for which element draws which bits.
#pragma once
#include <cmath>

#include "core/cuda/device/numeric.hpp"
#include "core/kernels/dropout.hpp"

namespace weft::cuda {

/// A DropoutSpec with its rule worked out: an element is kept, and scaled by `factor`, if its word is no less than
/// `threshold`. Default: no dropout.
struct DropoutRule {
  const PhiloxKey* key = nullptr;  ///< in device memory; null for no dropout
  float factor = 1;
  std::uint32_t threshold = 0;
  TokenMap rows;
  std::int64_t cols_global = 0;
  std::int64_t col_begin = 0;

  WEFT_DEVICE PhiloxKey read_key() const { return key ? *key : PhiloxKey{}; }
  /// The global index of a local row's first column.
  WEFT_DEVICE std::uint64_t row_index(std::int64_t row) const {
    return static_cast<std::uint64_t>(rows.global_row(row) * cols_global + col_begin);
  }
};

/// Host. Throws Error for a p that is not below 1 or has no key.
inline DropoutRule dropout_of(const DropoutSpec& spec) {
  if (!(spec.p > 0)) return {};
  WEFT_CHECK(spec.p < 1 && spec.key, "dropout p = {}", spec.p);
  // uniform(word) >= p with uniform(word) = (word >> 8)·2^-24.
  const auto threshold = static_cast<std::uint32_t>(std::ceil(static_cast<double>(spec.p) * 0x1p24)) << 8;
  return {spec.key, 1.0f / (1.0f - spec.p), threshold, spec.rows, spec.cols_global, spec.col_begin};
}

/// The words of N neighbours from global index `index` on; one Philox block serves four of them.
template <int N>
WEFT_DEVICE Pack<std::uint32_t, N> philox_words(PhiloxKey key, std::uint64_t index) {
  constexpr int blocks = (N + 3) / 4;
  const int skip = static_cast<int>(index % 4);
  std::uint32_t words[4 * blocks + 4] = {};
  const auto take = [&](int i) {
    const PhiloxBlock four = philox_block(key, index / 4 + static_cast<std::uint64_t>(i));
    for (int k = 0; k < 4; ++k) words[4 * i + k] = four[static_cast<std::size_t>(k)];
  };
  for (int i = 0; i < blocks; ++i) take(i);
  if (skip != 0) {
    if (skip + N > 4 * blocks) take(blocks);
    // Moves by constants alone, so that the words stay in registers.
    if (skip & 1)
      for (int i = 0; i < N + 2; ++i) words[i] = words[i + 1];
    if (skip & 2)
      for (int i = 0; i < N; ++i) words[i] = words[i + 2];
  }
  Pack<std::uint32_t, N> result;
  for (int i = 0; i < N; ++i) result.at[i] = words[i];
  return result;
}

/// What N neighbours from global index `index` on are multiplied by: dropout.factor or 0.
template <int N>
WEFT_DEVICE Pack<float, N> dropout_factors(const DropoutRule& dropout, PhiloxKey key, std::uint64_t index) {
  const auto words = philox_words<N>(key, index);
  Pack<float, N> factors;
  for (int i = 0; i < N; ++i) factors.at[i] = words.at[i] >= dropout.threshold ? dropout.factor : 0.0f;
  return factors;
}

}  // namespace weft::cuda
