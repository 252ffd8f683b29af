// Activations, sums, conversions, fills and dropout; see core/kernels/elementwise.hpp and dropout.hpp.
#include "core/cpu/vec/activation.hpp"
#include "core/cpu/vec/functions.hpp"
#include "core/cpu/vec/philox.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

WEFT_INLINE double sum_lanes(VecD v) {
  double total = 0;
  for (int i = 0; i < lanes / 2; ++i) total += v[i];
  return total;
}

template <class T>
void gelu_range(const T* x, T* y, std::int64_t begin, std::int64_t end) {
  for_vectors(begin, end, [&](std::int64_t i, auto n) { store_n(y + i, n, gelu_of(load_n(x + i, n))); });
}

template <class T>
void gelu_backward_range(const T* x, const T* dy, T* dx, std::int64_t begin, std::int64_t end) {
  for_vectors(begin, end,
              [&](std::int64_t i, auto n) { store_n(dx + i, n, load_n(dy + i, n) * gelu_slope(load_n(x + i, n))); });
}

template <class T>
void swiglu_rows(std::int64_t cols, const T* gate_up, T* y, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* gate = gate_up + 2 * row * cols;
    const T* up = gate + cols;
    T* out = y + row * cols;
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      const Vec g = load_n(gate + i, n);
      store_n(out + i, n, g * sigmoid(g) * load_n(up + i, n));
    });
  }
}

template <class T>
void swiglu_backward_rows(std::int64_t cols, const T* gate_up, const T* dy, T* dgate_up, std::int64_t begin,
                          std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* gate = gate_up + 2 * row * cols;
    const T* up = gate + cols;
    const T* d = dy + row * cols;
    T* dgate = dgate_up + 2 * row * cols;
    T* dup = dgate + cols;
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      const Vec g = load_n(gate + i, n), u = load_n(up + i, n), dv = load_n(d + i, n);
      const Vec s = sigmoid(g);
      const Vec silu = g * s;
      store_n(dgate + i, n, dv * u * fma(silu, 1.0f - s, s));
      store_n(dup + i, n, dv * silu);
    });
  }
}

template <class T>
void add_range(const T* a, const T* b, T* y, std::int64_t begin, std::int64_t end) {
  for_vectors(begin, end, [&](std::int64_t i, auto n) { store_n(y + i, n, load_n(a + i, n) + load_n(b + i, n)); });
}

template <class T>
void scaled_add_range(const T* x, const T* a, Vec alpha, T* y, std::int64_t begin, std::int64_t end) {
  for_vectors(begin, end,
              [&](std::int64_t i, auto n) { store_n(y + i, n, fma(alpha, load_n(a + i, n), load_n(x + i, n))); });
}

template <class T>
double scaled_add_backward_range(const T* a, Vec alpha, const T* dy, T* da, std::int64_t begin, std::int64_t end) {
  VecD even{}, odd{};
  for_vectors(begin, end, [&](std::int64_t i, auto n) {
    const Vec d = load_n(dy + i, n);
    VecD al, ah, dl, dh;
    to_double(load_n(a + i, n), al, ah);
    to_double(d, dl, dh);
    even += al * dl;
    odd += ah * dh;
    store_n(da + i, n, alpha * d);
  });
  return sum_lanes(even + odd);
}

template <class T>
void scale_range(Vec factor, T* y, std::int64_t begin, std::int64_t end) {
  for_vectors(begin, end, [&](std::int64_t i, auto n) { store_n(y + i, n, load_n(y + i, n) * factor); });
}

template <class From, class To>
void convert_range(const void* x, void* y, std::int64_t count) {
  const From* from = static_cast<const From*>(x);
  To* to = static_cast<To*>(y);
  for_vectors(0, count, [&](std::int64_t i, auto n) { store_n(to + i, n, load_n(from + i, n)); });
}

template <class From>
void accumulate_range(const From* x, float* y, std::int64_t count) {
  for_vectors(0, count, [&](std::int64_t i, auto n) { store_n(y + i, n, load_n(y + i, n) + load_n(x + i, n)); });
}

template <class T>
void dropout_rows(std::int64_t cols, const T* x, const DropoutArgs& args, T* y, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* from = x + row * cols;
    T* to = y + row * cols;
    for_dropout(args, row, 0, cols,
                [&](std::int64_t i, auto n, Vec factor) { store_n(to + i, n, load_n(from + i, n) * factor); });
  }
}

}  // namespace

void dropout(Elem elem, std::int64_t cols, const void* x, const DropoutArgs& args, void* y, std::int64_t row_begin,
             std::int64_t row_end) {
  if (elem == Elem::f32)
    dropout_rows(cols, static_cast<const float*>(x), args, static_cast<float*>(y), row_begin, row_end);
  else
    dropout_rows(cols, static_cast<const Half*>(x), args, static_cast<Half*>(y), row_begin, row_end);
}

void gelu(Elem elem, const void* x, void* y, std::int64_t begin, std::int64_t end) {
  if (elem == Elem::f32)
    gelu_range(static_cast<const float*>(x), static_cast<float*>(y), begin, end);
  else
    gelu_range(static_cast<const Half*>(x), static_cast<Half*>(y), begin, end);
}

void gelu_backward(Elem elem, const void* x, const void* dy, void* dx, std::int64_t begin, std::int64_t end) {
  if (elem == Elem::f32)
    gelu_backward_range(static_cast<const float*>(x), static_cast<const float*>(dy), static_cast<float*>(dx), begin,
                        end);
  else
    gelu_backward_range(static_cast<const Half*>(x), static_cast<const Half*>(dy), static_cast<Half*>(dx), begin, end);
}

void swiglu(Elem elem, std::int64_t cols, const void* gate_up, void* y, std::int64_t row_begin, std::int64_t row_end) {
  if (elem == Elem::f32)
    swiglu_rows(cols, static_cast<const float*>(gate_up), static_cast<float*>(y), row_begin, row_end);
  else
    swiglu_rows(cols, static_cast<const Half*>(gate_up), static_cast<Half*>(y), row_begin, row_end);
}

void swiglu_backward(Elem elem, std::int64_t cols, const void* gate_up, const void* dy, void* dgate_up,
                     std::int64_t row_begin, std::int64_t row_end) {
  if (elem == Elem::f32)
    swiglu_backward_rows(cols, static_cast<const float*>(gate_up), static_cast<const float*>(dy),
                         static_cast<float*>(dgate_up), row_begin, row_end);
  else
    swiglu_backward_rows(cols, static_cast<const Half*>(gate_up), static_cast<const Half*>(dy),
                         static_cast<Half*>(dgate_up), row_begin, row_end);
}

void add(Elem elem, const void* a, const void* b, void* y, std::int64_t begin, std::int64_t end) {
  if (elem == Elem::f32)
    add_range(static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(y), begin, end);
  else
    add_range(static_cast<const Half*>(a), static_cast<const Half*>(b), static_cast<Half*>(y), begin, end);
}

void scaled_add(Elem elem, const void* x, const void* a, float alpha, void* y, std::int64_t begin, std::int64_t end) {
  if (elem == Elem::f32)
    scaled_add_range(static_cast<const float*>(x), static_cast<const float*>(a), splat(alpha), static_cast<float*>(y),
                     begin, end);
  else
    scaled_add_range(static_cast<const Half*>(x), static_cast<const Half*>(a), splat(alpha), static_cast<Half*>(y),
                     begin, end);
}

double scaled_add_backward(Elem elem, const void* a, float alpha, const void* dy, void* da, std::int64_t begin,
                           std::int64_t end) {
  if (elem == Elem::f32)
    return scaled_add_backward_range(static_cast<const float*>(a), splat(alpha), static_cast<const float*>(dy),
                                     static_cast<float*>(da), begin, end);
  return scaled_add_backward_range(static_cast<const Half*>(a), splat(alpha), static_cast<const Half*>(dy),
                                   static_cast<Half*>(da), begin, end);
}

void convert(Elem from, const void* x, Elem to, void* y, std::int64_t count) {
  if (from == Elem::f32)
    to == Elem::f32 ? convert_range<float, float>(x, y, count) : convert_range<float, Half>(x, y, count);
  else
    to == Elem::f32 ? convert_range<Half, float>(x, y, count) : convert_range<Half, Half>(x, y, count);
}

void accumulate(Elem from, const void* x, float* y, std::int64_t count) {
  from == Elem::f32 ? accumulate_range(static_cast<const float*>(x), y, count)
                    : accumulate_range(static_cast<const Half*>(x), y, count);
}

void fill(Elem elem, float value, void* y, std::int64_t begin, std::int64_t end) {
  const Vec v = splat(value);
  if (elem == Elem::f32)
    for_vectors(begin, end, [&](std::int64_t i, auto n) { store_n(static_cast<float*>(y) + i, n, v); });
  else
    for_vectors(begin, end, [&](std::int64_t i, auto n) { store_n(static_cast<Half*>(y) + i, n, v); });
}

void scale(Elem elem, float factor, void* y, std::int64_t begin, std::int64_t end) {
  if (elem == Elem::f32)
    scale_range(splat(factor), static_cast<float*>(y), begin, end);
  else
    scale_range(splat(factor), static_cast<Half*>(y), begin, end);
}

double dot(const float* a, const float* b, std::int64_t begin, std::int64_t end) {
  VecD even{}, odd{};
  for_vectors(begin, end, [&](std::int64_t i, auto n) {
    VecD al, ah, bl, bh;
    to_double(load_n(a + i, n), al, ah);
    if (b)
      to_double(load_n(b + i, n), bl, bh);
    else
      bl = bh = VecD{} + 1.0;
    even += al * bl;
    odd += ah * bh;
  });
  return sum_lanes(even + odd);
}

void sum_rows(const float* parts, std::int64_t rows, std::int64_t stride, bool add_to, float* y, std::int64_t begin,
              std::int64_t end) {
  for_vectors(begin, end, [&](std::int64_t i, auto n) {
    Vec total = add_to ? load_n(y + i, n) : Vec{};
    for (std::int64_t row = 0; row < rows; ++row) total += load_n(parts + row * stride + i, n);
    store_n(y + i, n, total);
  });
}

}  // namespace weft::cpu::WEFT_ISA
