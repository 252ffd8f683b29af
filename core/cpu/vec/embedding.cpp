// Embeddings and rotary positions; see core/kernels/embedding.hpp.
#include "core/cpu/vec/functions.hpp"
#include "core/cpu/vec/philox.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

template <class T>
void forward_rows(const EmbeddingForwardArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t id = a.tokens[row];
    const bool held = id >= a.vocab_begin && id < a.vocab_end;
    const float* token = held ? a.token_table + (id - a.vocab_begin) * a.cols : nullptr;
    const float* position = a.position_table;
    if (position) position += token_position(a.dropout, row % a.dropout.seq_local) * a.cols;
    T* y = static_cast<T*>(a.y) + row * a.cols;
    const auto embedded = [&](std::int64_t i, auto n) {
      const Vec v = token ? load_n(token + i, n) : Vec{};
      return position ? v + load_n(position + i, n) : v;
    };
    if (a.dropout.active)
      for_dropout(a.dropout, row, 0, a.cols,
                  [&](std::int64_t i, auto n, Vec factor) { store_n(y + i, n, embedded(i, n) * factor); });
    else
      for_vectors(0, a.cols, [&](std::int64_t i, auto n) { store_n(y + i, n, embedded(i, n)); });
  }
}

// A thread owns columns and walks all rows, so the order of the sums does not depend on the threads.
template <class T>
void backward_cols(const EmbeddingBackwardArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = 0; row < a.rows; ++row) {
    const T* dy = static_cast<const T*>(a.dy) + row * a.cols;
    const std::int64_t id = a.tokens[row];
    const bool held = id >= a.vocab_begin && id < a.vocab_end;
    if (!held && !a.dpositions) continue;
    float* dtoken = held ? a.dtokens + (id - a.vocab_begin) * a.cols : nullptr;
    float* dposition = a.dpositions;
    if (dposition) dposition += token_position(a.dropout, row % a.dropout.seq_local) * a.cols;
    const auto add = [&](std::int64_t i, auto n, Vec d) {
      if (dtoken) store_n(dtoken + i, n, load_n(dtoken + i, n) + d);
      if (dposition) store_n(dposition + i, n, load_n(dposition + i, n) + d);
    };
    if (a.dropout.active)
      for_dropout(a.dropout, row, begin, end,
                  [&](std::int64_t i, auto n, Vec factor) { add(i, n, load_n(dy + i, n) * factor); });
    else
      for_vectors(begin, end, [&](std::int64_t i, auto n) { add(i, n, load_n(dy + i, n)); });
  }
}

// sin and cos to about 1e-11 for |x| < 10^8: reduction to |r| <= π/4 in two parts, Taylor polynomials.
WEFT_INLINE void sin_cos(VecD x, VecD& sine, VecD& cosine) {
  const VecD magic = VecD{} + 6755399441055744.0;  // 1.5·2^52
  const VecD shifted = x * 0.63661977236758134308 + magic;
  const VecD q = shifted - magic;
  const VecD r = (x - q * 1.57079632673412561417) - q * 6.07710050650619224932e-11;
  const VecD z = r * r;
  const VecD s =
      r + r * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800)))));
  const VecD c =
      1.0 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z / 479001600)))));
  const VecU64 quadrant = reinterpret_cast<VecU64>(shifted);
  const auto odd = (quadrant & 1) != 0;
  const VecU64 sine_sign = (quadrant & 2) << 62, cosine_sign = ((quadrant + 1) & 2) << 62;
  sine = reinterpret_cast<VecD>(reinterpret_cast<VecU64>(odd ? c : s) ^ sine_sign);
  cosine = reinterpret_cast<VecD>(reinterpret_cast<VecU64>(odd ? s : c) ^ cosine_sign);
}

template <class T>
void rotary_tokens(const RotaryArgs& a, std::int64_t begin, std::int64_t end, float* cosines) {
  constexpr int wide = lanes / 2;
  const std::int64_t half = a.head_dim / 2;
  float* sines = cosines + half;
  for (std::int64_t token = begin; token < end; ++token) {
    const double position = static_cast<double>(token_position(a.rows, token)) * a.direction;
    for (std::int64_t i = 0; i < half; i += wide) {
      const std::int64_t n = smaller(wide, half - i);
      VecD angle{}, sine, cosine;
      for (std::int64_t j = 0; j < n; ++j) angle[j] = a.frequency[i + j] * position;
      sin_cos(angle, sine, cosine);
      for (std::int64_t j = 0; j < n; ++j) {
        cosines[i + j] = static_cast<float>(cosine[j]);
        sines[i + j] = static_cast<float>(sine[j]);
      }
    }
    for (std::int64_t b = 0; b < a.batch; ++b)
      for (std::int64_t h = 0; h < a.heads; ++h) {
        const T* x = static_cast<const T*>(a.x) + b * a.x_strides[0] + token * a.x_strides[1] + h * a.x_strides[2];
        T* y = static_cast<T*>(a.y) + b * a.y_strides[0] + token * a.y_strides[1] + h * a.y_strides[2];
        for_vectors(0, half, [&](std::int64_t i, auto n) {
          const Vec first = load_n(x + i, n), second = load_n(x + half + i, n);
          const Vec c = load_n(cosines + i, n), s = load_n(sines + i, n);
          store_n(y + i, n, first * c - second * s);
          store_n(y + half + i, n, fma(second, c, first * s));
        });
      }
  }
}

}  // namespace

void embedding_forward(const EmbeddingForwardArgs& args, std::int64_t row_begin, std::int64_t row_end) {
  args.elem == Elem::f32 ? forward_rows<float>(args, row_begin, row_end) : forward_rows<Half>(args, row_begin, row_end);
}

void embedding_backward(const EmbeddingBackwardArgs& args, std::int64_t col_begin, std::int64_t col_end) {
  args.elem == Elem::f32 ? backward_cols<float>(args, col_begin, col_end)
                         : backward_cols<Half>(args, col_begin, col_end);
}

void rotary(const RotaryArgs& args, std::int64_t token_begin, std::int64_t token_end, float* turn) {
  args.elem == Elem::f32 ? rotary_tokens<float>(args, token_begin, token_end, turn)
                         : rotary_tokens<Half>(args, token_begin, token_end, turn);
}

}  // namespace weft::cpu::WEFT_ISA
