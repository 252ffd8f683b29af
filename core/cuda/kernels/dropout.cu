// Dropout; see core/kernels/dropout.hpp.
#include "core/cuda/device/dropout.hpp"
#include "core/cuda/device/rows.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

template <class T, int Width>
struct Apply {
  static constexpr int threads = 256;
  const T* x;
  DropoutRule dropout;
  T* y;
  std::int64_t rows, cols;

  WEFT_DEVICE void operator()(const Block& block) const {
    const PhiloxKey key = dropout.read_key();
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      const T* from = x + row * cols;
      T* to = y + row * cols;
      const std::uint64_t index = dropout.row_index(row);
      return [this, key, from, to, index](std::int64_t col) {
        auto pack = load_pack<Width>(from + col);
        if (dropout.key) {
          const auto factors = dropout_factors<Width>(dropout, key, index + static_cast<std::uint64_t>(col));
          for (int k = 0; k < Width; ++k) pack.at[k] = from_float<T>(to_float(pack.at[k]) * factors.at[k]);
        }
        store_pack(to + col, pack);
      };
    });
  }
};

void apply(ExecContext& exec, View x, DropoutSpec spec, MutView y) {
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (rows == 0) return;
  check_given(x, x.shape, x.dtype, "x");
  check_given(y, x.shape, x.dtype, "y");
  dispatch_float(x.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      const Apply<T, Width> kernel{x.as<T>(), dropout_of(spec), y.as<T>(), rows, cols};
      launch(exec, row_blocks<Apply<T, Width>, Width>(rows, cols), kernel);
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack<width>(x.as<T>(), cols, cols) && can_pack<width>(y.as<T>(), cols, cols);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

}  // namespace

void bind_dropout(KernelTable& table) { table.dropout.apply.bind(apply); }

}  // namespace weft::cuda
