// Gates of channels and the Boom layer's sum; see core/kernels/channels.hpp.
#include "core/cpu/vec/activation.hpp"
#include "core/cpu/vec/functions.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

template <class T>
void scale_rows(std::int64_t cols, const T* x, const float* gate, T* y, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row)
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      store_n(y + row * cols + i, n, load_n(x + row * cols + i, n) * load_n(gate + i, n));
    });
}

template <class T>
void scale_backward_rows(std::int64_t cols, const T* x, const float* gate, const T* dy, T* dx, std::int64_t begin,
                         std::int64_t end, float* dgate) {
  for (std::int64_t row = begin; row < end; ++row)
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      const Vec d = load_n(dy + row * cols + i, n);
      store_n(dgate + i, n, fma(load_n(x + row * cols + i, n), d, load_n(dgate + i, n)));
      store_n(dx + row * cols + i, n, d * load_n(gate + i, n));
    });
}

template <class T>
void boom_rows(std::int64_t chunks, std::int64_t cols, const T* x, T* y, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* from = x + row * chunks * cols;
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      Vec total{};
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += gelu_of(load_n(from + chunk * cols + i, n));
      store_n(y + row * cols + i, n, total);
    });
  }
}

template <class T>
void boom_backward_rows(std::int64_t chunks, std::int64_t cols, const T* x, const T* dy, T* dx, std::int64_t begin,
                        std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const T* from = x + row * chunks * cols;
    T* to = dx + row * chunks * cols;
    for_vectors(0, cols, [&](std::int64_t i, auto n) {
      const Vec d = load_n(dy + row * cols + i, n);
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
        store_n(to + chunk * cols + i, n, d * gelu_slope(load_n(from + chunk * cols + i, n)));
    });
  }
}

}  // namespace

void channel_gates(const ChannelGateArgs& args, float* gate) {
  for_vectors(0, args.cols, [&](std::int64_t i, auto n) {
    const Vec b = load_n(args.b + i, n);
    store_n(gate + i, n, sigmoid(load_n(args.a + i, n)) * (args.tanh ? tanh(b) : sigmoid(b)));
  });
}

void channel_gate_slopes(const ChannelGateArgs& args, const float* dgate, float* da, float* db) {
  for_vectors(0, args.cols, [&](std::int64_t i, auto n) {
    const Vec b = load_n(args.b + i, n), s = sigmoid(load_n(args.a + i, n)), d = load_n(dgate + i, n);
    const Vec phi = args.tanh ? tanh(b) : sigmoid(b);
    store_n(da + i, n, d * phi * s * (1.0f - s));
    store_n(db + i, n, d * s * (args.tanh ? 1.0f - phi * phi : phi * (1.0f - phi)));
  });
}

void scale_channels(Elem elem, std::int64_t cols, const void* x, const float* gate, void* y, std::int64_t row_begin,
                    std::int64_t row_end) {
  if (elem == Elem::f32)
    scale_rows(cols, static_cast<const float*>(x), gate, static_cast<float*>(y), row_begin, row_end);
  else
    scale_rows(cols, static_cast<const Half*>(x), gate, static_cast<Half*>(y), row_begin, row_end);
}

void scale_channels_backward(Elem elem, std::int64_t cols, const void* x, const float* gate, const void* dy, void* dx,
                             std::int64_t row_begin, std::int64_t row_end, float* dgate) {
  if (elem == Elem::f32)
    scale_backward_rows(cols, static_cast<const float*>(x), gate, static_cast<const float*>(dy),
                        static_cast<float*>(dx), row_begin, row_end, dgate);
  else
    scale_backward_rows(cols, static_cast<const Half*>(x), gate, static_cast<const Half*>(dy), static_cast<Half*>(dx),
                        row_begin, row_end, dgate);
}

void boom(Elem elem, std::int64_t chunks, std::int64_t cols, const void* x, void* y, std::int64_t row_begin,
          std::int64_t row_end) {
  if (elem == Elem::f32)
    boom_rows(chunks, cols, static_cast<const float*>(x), static_cast<float*>(y), row_begin, row_end);
  else
    boom_rows(chunks, cols, static_cast<const Half*>(x), static_cast<Half*>(y), row_begin, row_end);
}

void boom_backward(Elem elem, std::int64_t chunks, std::int64_t cols, const void* x, const void* dy, void* dx,
                   std::int64_t row_begin, std::int64_t row_end) {
  if (elem == Elem::f32)
    boom_backward_rows(chunks, cols, static_cast<const float*>(x), static_cast<const float*>(dy),
                       static_cast<float*>(dx), row_begin, row_end);
  else
    boom_backward_rows(chunks, cols, static_cast<const Half*>(x), static_cast<const Half*>(dy), static_cast<Half*>(dx),
                       row_begin, row_end);
}

}  // namespace weft::cpu::WEFT_ISA
