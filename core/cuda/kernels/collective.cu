// The local part of reductions over ranks, and marks for the host; see core/kernels/collective.hpp.
#include <algorithm>
#include <type_traits>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

template <class T>
inline constexpr bool is_narrow = std::is_same_v<T, float> || std::is_same_v<T, bf16>;

/// What a reduction of T computes in.
template <class T>
using Wide = std::conditional_t<is_narrow<T>, float, T>;

template <class T>
WEFT_DEVICE Wide<T> widen(T value) {
  if constexpr (is_narrow<T>)
    return to_float(value);
  else
    return value;
}

template <class T>
WEFT_DEVICE T narrow(Wide<T> value) {
  if constexpr (is_narrow<T>)
    return from_float<T>(value);
  else
    return value;
}

template <class W>
WEFT_DEVICE W combine(ReduceOp op, W a, W b) {
  if (op == ReduceOp::max) return a > b || a != a ? a : b;
  if (op == ReduceOp::min) return a < b || a != a ? a : b;
  if constexpr (std::is_signed_v<W> && std::is_integral_v<W>)
    return static_cast<W>(static_cast<std::make_unsigned_t<W>>(a) + static_cast<std::make_unsigned_t<W>>(b));
  else
    return static_cast<W>(a + b);
}

/// The first `packs` packs of each part whole, the rest one by one.
template <class In, class Out>
struct Reduce {
  static constexpr int threads = 256;
  static constexpr int width = pack_width<In> < pack_width<Out> ? pack_width<In> : pack_width<Out>;
  ReduceOp op;
  const In* parts;
  Out* out;
  std::int64_t part_count, count, packs;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, packs, [&](std::int64_t i) {
      Wide<In> sum[width];
      const auto first = load_pack<width>(parts + i * width);
      for (int k = 0; k < width; ++k) sum[k] = widen(first.at[k]);
      for (std::int64_t part = 1; part < part_count; ++part) {
        const auto next = load_pack<width>(parts + part * count + i * width);
        for (int k = 0; k < width; ++k) sum[k] = combine(op, sum[k], widen(next.at[k]));
      }
      Pack<Out, width> result;
      for (int k = 0; k < width; ++k) result.at[k] = narrow<Out>(sum[k]);
      store_pack(out + i * width, result);
    });
    for_grid(block, count - packs * width, [&](std::int64_t j) {
      const std::int64_t i = packs * width + j;
      Wide<In> sum = widen(parts[i]);
      for (std::int64_t part = 1; part < part_count; ++part) sum = combine(op, sum, widen(parts[part * count + i]));
      out[i] = narrow<Out>(sum);
    });
  }
};

struct Count {
  static constexpr int threads = warp_threads;
  std::int64_t* counter;

  WEFT_DEVICE void operator()(const Block& block) const {
    if (block.thread() == 0) block.tell_host(counter, *counter + 1);
  }
};

template <class In, class Out>
void reduce_as(ExecContext& exec, ReduceOp op, View parts, MutView out) {
  using Kernel = Reduce<In, Out>;
  const std::int64_t count = out.numel();
  const auto* from = static_cast<const In*>(parts.data);
  auto* to = static_cast<Out*>(out.data);
  const bool packed =
      can_pack<Kernel::width>(from, 0, parts.shape[0] > 1 ? count : 0) && can_pack<Kernel::width>(to, 0, 0);
  const std::int64_t packs = packed ? count / Kernel::width : 0;
  launch(exec, blocks_for<Kernel>(std::max(packs, count - packs * Kernel::width)),
         Kernel{op, from, to, parts.shape[0], count, packs});
}

void reduce(ExecContext& exec, ReduceOp op, View parts, MutView out) {
  WEFT_CHECK(parts.shape.rank() == 2 && parts.shape[0] > 0, "parts are {}", to_string(parts.shape));
  check_given(parts, parts.shape, parts.dtype, "parts");
  check_given(out, {parts.shape[1]}, out.dtype, "out");
  const bool widened = parts.dtype == DType::bf16 && out.dtype == DType::f32;
  WEFT_CHECK(widened || out.dtype == parts.dtype, "{} into {}", name_of(parts.dtype), name_of(out.dtype));
  switch (parts.dtype) {
    case DType::f32: return reduce_as<float, float>(exec, op, parts, out);
    case DType::bf16:
      return widened ? reduce_as<bf16, float>(exec, op, parts, out) : reduce_as<bf16, bf16>(exec, op, parts, out);
    case DType::f64: return reduce_as<double, double>(exec, op, parts, out);
    case DType::i32: return reduce_as<std::int32_t, std::int32_t>(exec, op, parts, out);
    case DType::i64: return reduce_as<std::int64_t, std::int64_t>(exec, op, parts, out);
    case DType::u8: return reduce_as<std::uint8_t, std::uint8_t>(exec, op, parts, out);
    default: fail("{} cannot be reduced", name_of(parts.dtype));
  }
}

void count(ExecContext& exec, MutView counter) {
  check_given(counter, {1}, DType::i64, "counter");
  launch(exec, 1, Count{static_cast<std::int64_t*>(counter.data)});
}

}  // namespace

void bind_collective(KernelTable& table) {
  table.collective.reduce.bind(reduce);
  table.collective.count.bind(count);
}

}  // namespace weft::cuda
