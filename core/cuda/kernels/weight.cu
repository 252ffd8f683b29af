#include "core/cuda/kernels/weight.hpp"

#include <optional>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/launch.hpp"

namespace weft::cuda {
namespace {

/// y, contiguous, = x of `rows` rows with row_packs packs each, then zeros, `packs` packs in all.
template <int Width>
struct Narrow {
  static constexpr int threads = 256;
  const float* x;
  bf16* y;
  std::int64_t rows, row_packs, stride, packs;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, packs, [&](std::int64_t i) {
      const std::int64_t row = i / row_packs;
      Pack<float, Width> from{};
      if (row < rows) from = load_pack<Width>(x + row * stride + (i - row * row_packs) * Width);
      Pack<bf16, Width> to;
      for (int k = 0; k < Width; ++k) to.at[k] = from_float<bf16>(from.at[k]);
      store_pack(y + i * Width, to);
    });
  }
};

void narrow(ExecContext& exec, const float* x, std::int64_t rows, std::int64_t cols, std::int64_t stride,
            std::int64_t total, bf16* y) {
  if (stride == cols) {
    cols *= rows;
    rows = 1;
  }
  constexpr int width = pack_width<bf16>;
  const auto start = [&]<int Width>() {
    const Narrow<Width> kernel{x, y, rows, cols / Width, stride, total / Width};
    launch(exec, blocks_for<Narrow<Width>>(total / Width), kernel);
  };
  const bool packed = can_pack<width>(x, cols, rows > 1 ? stride : 0) && can_pack<width>(y, total, 0);
  packed ? start.template operator()<width>() : start.template operator()<1>();
}

std::int64_t copy_elements(const View& weight) { return padded_outputs(weight.rows()) * weight.cols(); }

std::size_t copy_bytes(const View& weight) { return static_cast<std::size_t>(copy_elements(weight)) * sizeof(bf16); }

class WeightCopy final : public PackedWeight {
 public:
  WeightCopy(Allocator& memory, std::size_t bytes)
      : memory_(memory), bytes_(bytes), data_(memory.allocate(bytes, MemoryUse::parameter)) {}
  ~WeightCopy() override { memory_.deallocate(data_, bytes_, MemoryUse::parameter); }
  WeightCopy(const WeightCopy&) = delete;
  WeightCopy& operator=(const WeightCopy&) = delete;

  bf16* data() const { return static_cast<bf16*>(data_); }
  std::size_t bytes() const { return bytes_; }
  bool holds(std::uint64_t version) const { return version_ == version; }
  void made_of(std::uint64_t version) { version_ = version; }

 private:
  Allocator& memory_;
  std::size_t bytes_;
  void* data_;
  std::optional<std::uint64_t> version_;
};

WeightCopy& copy_of(ExecContext& exec, const WeightRef& w) {
  auto* copy = dynamic_cast<WeightCopy*>(w.pack->get());
  if (copy && copy->bytes() == copy_bytes(w.value)) return *copy;
  w.pack->reset();
  auto made = std::make_unique<WeightCopy>(exec.memory(), copy_bytes(w.value));
  copy = made.get();
  *w.pack = std::move(made);
  return *copy;
}

}  // namespace

std::size_t weight_scratch(const WeightRef& w, DType dtype) {
  return dtype == DType::bf16 && !w.pack ? copy_bytes(w.value) : 0;
}

ConstMatrix weight_for(ExecContext& exec, const WeightRef& w, DType dtype, void* scratch) {
  const ConstMatrix master(w.value);
  if (dtype == DType::f32) return master;
  const auto convert = [&](bf16* to) {
    narrow(exec, static_cast<const float*>(master.data), master.rows, master.cols, master.stride,
           copy_elements(w.value), to);
  };
  bf16* data = static_cast<bf16*>(scratch);
  if (!w.pack) {
    convert(data);
  } else {
    WeightCopy& copy = copy_of(exec, w);
    data = copy.data();
    if (!copy.holds(w.version)) {
      convert(data);
      copy.made_of(w.version);
    }
  }
  return {data, DType::bf16, master.rows, master.cols, master.cols};
}

void narrow(ExecContext& exec, const float* x, std::int64_t count, bf16* y) {
  narrow(exec, x, 1, count, count, count, y);
}

}  // namespace weft::cuda
