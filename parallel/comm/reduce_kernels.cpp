#include "parallel/comm/reduce_kernels.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "core/kernels/table.hpp"

namespace weft {
namespace {

struct Sum {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a + b);
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <class T>
  static T apply(T a, T b) {
    return a < b || a != a ? a : b;
  }
};

template <class Op, class T>
void combine_typed(void* out_, const void* a_, const void* b_, std::int64_t count) {
  auto* out = static_cast<T*>(out_);
  const auto* a = static_cast<const T*>(a_);
  const auto* b = static_cast<const T*>(b_);
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, bf16>)
      out[i] = bf16(Op::apply(static_cast<float>(a[i]), static_cast<float>(b[i])));
    else if constexpr (std::is_integral_v<T>)
      // Unsigned arithmetic: integer sums wrap.
      out[i] =
          std::is_same_v<Op, Sum>
              ? static_cast<T>(static_cast<std::make_unsigned_t<T>>(a[i]) + static_cast<std::make_unsigned_t<T>>(b[i]))
              : Op::apply(a[i], b[i]);
    else
      out[i] = Op::apply(a[i], b[i]);
  }
}

template <class Body>
void dispatch_reducible(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32: return body.template operator()<float>();
    case DType::bf16: return body.template operator()<bf16>();
    case DType::f64: return body.template operator()<double>();
    case DType::i32: return body.template operator()<std::int32_t>();
    case DType::i64: return body.template operator()<std::int64_t>();
    case DType::u8: return body.template operator()<std::uint8_t>();
    case DType::u16: break;
  }
  fail("{} elements cannot be reduced", name_of(dtype));
}

constexpr std::int64_t tile = 2048;

template <class Store>
void sum_tiles(std::span<const bf16* const> parts, std::int64_t count, Store&& store) {
  std::array<float, tile> total;
  for (std::int64_t begin = 0; begin < count; begin += tile) {
    const std::int64_t length = std::min(tile, count - begin);
    for (std::int64_t i = 0; i < length; ++i) total[i] = static_cast<float>(parts[0][begin + i]);
    for (const bf16* part : parts.subspan(1))
      for (std::int64_t i = 0; i < length; ++i) total[i] += static_cast<float>(part[begin + i]);
    store(begin, length, total.data());
  }
}

}  // namespace

bool can_reduce(DType dtype) { return dtype != DType::u16; }

void combine(ReduceOp op, DType dtype, void* out, const void* a, const void* b, std::int64_t count) {
  dispatch_reducible(dtype, [&]<class T>() {
    switch (op) {
      case ReduceOp::sum: return combine_typed<Sum, T>(out, a, b, count);
      case ReduceOp::max: return combine_typed<Max, T>(out, a, b, count);
      case ReduceOp::min: return combine_typed<Min, T>(out, a, b, count);
    }
  });
}

void sum_bf16(std::span<const bf16* const> parts, float* out, std::int64_t count) {
  sum_tiles(parts, count, [out](std::int64_t begin, std::int64_t length, const float* total) {
    std::copy_n(total, length, out + begin);
  });
}

void sum_bf16(std::span<const bf16* const> parts, bf16* out, std::int64_t count) {
  sum_tiles(parts, count, [out](std::int64_t begin, std::int64_t length, const float* total) {
    to_bf16(total, out + begin, length);
  });
}

void to_bf16(const float* __restrict x, bf16* __restrict y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = bf16(x[i]);
}

void to_f32(const bf16* __restrict x, float* __restrict y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = static_cast<float>(x[i]);
}

void fill_identity(ReduceOp op, MutView x) {
  dispatch_reducible(x.dtype, [&]<class T>() {
    const auto value = [op] {
      if (op == ReduceOp::sum) return T{};
      if constexpr (std::is_same_v<T, bf16>) {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        return bf16(op == ReduceOp::max ? -infinity : infinity);
      } else if constexpr (std::is_floating_point_v<T>) {
        constexpr T infinity = std::numeric_limits<T>::infinity();
        return op == ReduceOp::max ? -infinity : infinity;
      } else {
        return op == ReduceOp::max ? std::numeric_limits<T>::lowest() : std::numeric_limits<T>::max();
      }
    }();
    std::fill_n(static_cast<T*>(x.data), x.numel(), value);
  });
}

void fill_identity(ExecContext& exec, ReduceOp op, MutView x) {
  if (x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f64) {
    float identity = 0;
    fill_identity(op, MutView(&identity, {1}, DType::f32));
    exec.kernels().elementwise.fill(exec, identity, x);
    return;
  }
  std::vector<char> identities(x.bytes());
  fill_identity(op, MutView(identities.data(), x.shape, x.dtype));
  exec.kernels().transfer.upload(exec, View(identities.data(), x.shape, x.dtype), x);
}

}  // namespace weft
