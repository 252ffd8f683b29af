// Layer and RMS norm; see core/kernels/norm.hpp.
#include "core/cpu/vec/functions.hpp"

#include "core/cpu/vec/philox.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

// The sum is taken as it is stored, so that backward sees the same values.
template <class T>
void add_branch(const T* x, const T* branch, const DropoutArgs& dropout, std::int64_t row, std::int64_t cols, T* sum) {
  if (dropout.active)
    for_dropout(dropout, row, 0, cols, [&](std::int64_t i, auto n, Vec factor) {
      store_n(sum + i, n, fma(load_n(branch + i, n), factor, load_n(x + i, n)));
    });
  else
    for_vectors(0, cols,
                [&](std::int64_t i, auto n) { store_n(sum + i, n, load_n(x + i, n) + load_n(branch + i, n)); });
}

template <class T>
float mean_of(const T* x, std::int64_t cols) {
  Vec total{};
  for_vectors(0, cols, [&](std::int64_t i, auto n) { total += load_n(x + i, n); });
  return sum(total) / static_cast<float>(cols);
}

template <class T>
float mean_square(const T* x, std::int64_t cols, float center) {
  Vec total{};
  const Vec c = splat(center);
  const std::int64_t whole = cols / lanes * lanes;
  for (std::int64_t i = 0; i < whole; i += lanes) {
    const Vec v = load(x + i) - c;
    total = fma(v, v, total);
  }
  float all = sum(total);
  for (std::int64_t i = whole; i < cols; ++i) {
    const float v = load_one(x + i) - center;
    all += v * v;
  }
  return all / static_cast<float>(cols);
}

template <class T>
void forward_rows(const NormForwardArgs& a, std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = a.cols;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * cols;
    if (a.branch) {
      T* total = static_cast<T*>(a.sum) + row * cols;
      add_branch(x, static_cast<const T*>(a.branch) + row * cols, a.dropout, row, cols, total);
      x = total;
    }
    const float mean = a.rms ? 0 : mean_of(x, cols);
    const float rstd = 1.0f / __builtin_sqrtf(mean_square(x, cols, mean) + a.eps);
    if (a.mean) a.mean[row] = mean;
    if (a.rstd) a.rstd[row] = rstd;
    T* y = static_cast<T*>(a.y) + row * cols;
    const Vec center = splat(mean), factor = splat(rstd);
    if (a.bias)
      for_vectors(0, cols, [&](std::int64_t i, auto n) {
        store_n(y + i, n, fma((load_n(x + i, n) - center) * factor, load_n(a.gain + i, n), load_n(a.bias + i, n)));
      });
    else
      for_vectors(0, cols, [&](std::int64_t i, auto n) {
        store_n(y + i, n, (load_n(x + i, n) - center) * factor * load_n(a.gain + i, n));
      });
  }
}

template <class T>
void backward_rows(const NormBackwardArgs& a, std::int64_t begin, std::int64_t end, float* dgain, float* dbias) {
  const std::int64_t cols = a.cols;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.sum) + row * cols;
    const T* dy = static_cast<const T*>(a.dy) + row * cols;
    T* dx = static_cast<T*>(a.dx) + row * cols;
    const Vec mean = splat(a.mean ? a.mean[row] : 0), rstd = splat(a.rstd[row]);
    Vec sum_g{}, sum_gx{};
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      // Beyond a short run's end dy is 0, and with it every term.
      const Vec d = load_n(dy + i, n), normed = (load_n(x + i, n) - mean) * rstd, g = d * load_n(a.gain + i, n);
      sum_g += g;
      sum_gx = fma(g, normed, sum_gx);
      store_n(dgain + i, n, fma(d, normed, load_n(dgain + i, n)));
      if (dbias) store_n(dbias + i, n, load_n(dbias + i, n) + d);
    });
    const float count = static_cast<float>(cols);
    const Vec mean_g = splat(a.rms ? 0 : sum(sum_g) / count), mean_gx = splat(sum(sum_gx) / count);
    const auto gradient = [&](std::int64_t i, auto n) {
      const Vec normed = (load_n(x + i, n) - mean) * rstd, g = load_n(dy + i, n) * load_n(a.gain + i, n);
      return (g - mean_g - normed * mean_gx) * rstd;
    };
    if (a.dsum) {
      const T* dsum = static_cast<const T*>(a.dsum) + row * cols;
      for_vectors(0, cols, [&](std::int64_t i, auto n) { store_n(dx + i, n, gradient(i, n) + load_n(dsum + i, n)); });
    } else {
      for_vectors(0, cols, [&](std::int64_t i, auto n) { store_n(dx + i, n, gradient(i, n)); });
    }
    if (!a.dbranch) continue;
    T* dbranch = static_cast<T*>(a.dbranch) + row * cols;
    if (a.dropout.active)
      for_dropout(a.dropout, row, 0, cols,
                  [&](std::int64_t i, auto n, Vec factor) { store_n(dbranch + i, n, load_n(dx + i, n) * factor); });
    else
      for_vectors(0, cols, [&](std::int64_t i, auto n) { store_n(dbranch + i, n, load_n(dx + i, n)); });
  }
}

}  // namespace

void norm_forward(const NormForwardArgs& args, std::int64_t row_begin, std::int64_t row_end) {
  args.elem == Elem::f32 ? forward_rows<float>(args, row_begin, row_end) : forward_rows<Half>(args, row_begin, row_end);
}

void norm_backward(const NormBackwardArgs& args, std::int64_t row_begin, std::int64_t row_end, float* dgain,
                   float* dbias) {
  args.elem == Elem::f32 ? backward_rows<float>(args, row_begin, row_end, dgain, dbias)
                         : backward_rows<Half>(args, row_begin, row_end, dgain, dbias);
}

}  // namespace weft::cpu::WEFT_ISA
