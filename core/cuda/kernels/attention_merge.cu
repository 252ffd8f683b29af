// Attention over two sets of keys from the attention over each; see core/kernels/attention.hpp.
#include <limits>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/device/rows.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

/// Where a row of batch × tokens × heads lies in both sets.
struct MergeRows {
  std::int64_t tokens, heads;
  const float* part_lse;
  float* lse;
  std::int64_t lse_batch, lse_head, lse_token;  // strides

  struct Row {
    std::int64_t batch, token, head;
  };
  WEFT_DEVICE Row at(std::int64_t row) const {
    const std::int64_t outer = row / heads, batch = outer / tokens;
    return {batch, outer - batch * tokens, row - outer * heads};
  }
  WEFT_DEVICE float added(const Row& row) const {
    return part_lse[(row.batch * heads + row.head) * tokens + row.token];
  }
  WEFT_DEVICE float& before(const Row& row) const {
    return lse[row.batch * lse_batch + row.head * lse_head + row.token * lse_token];
  }
  /// log(exp(before) + exp(added)); added is finite.
  WEFT_DEVICE static float total(float before, float added) {
    const float top = before > added ? before : added;
    return top + logf(expf(before - top) + expf(added - top));
  }
};

template <class T, int Width>
struct MergeValues {
  static constexpr int threads = 256;
  MergeRows where;
  const T* part;
  float* out;
  std::int64_t rows, cols, out_batch, out_token, out_head;  // strides

  WEFT_DEVICE void operator()(const Block& block) const {
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t index) {
      const auto row = where.at(index);
      const float added = where.added(row), before = where.before(row);
      const bool nothing = added == -std::numeric_limits<float>::infinity();
      const float total = nothing ? 0 : MergeRows::total(before, added);
      const float keep = nothing ? 1 : expf(before - total), take = nothing ? 0 : expf(added - total);
      const T* from = part + index * cols;
      float* to = out + row.batch * out_batch + row.token * out_token + row.head * out_head;
      return [keep, take, from, to](std::int64_t col) {
        const auto pack = load_pack<Width>(from + col);
        auto sum = load_pack<Width>(to + col);
        for (int k = 0; k < Width; ++k) sum.at[k] = sum.at[k] * keep + to_float(pack.at[k]) * take;
        store_pack(to + col, sum);
      };
    });
  }
};

/// After MergeValues, which reads what this replaces.
struct MergeLse {
  static constexpr int threads = 256;
  MergeRows where;
  std::int64_t rows;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, rows, [&](std::int64_t index) {
      const auto row = where.at(index);
      const float added = where.added(row);
      float& lse = where.before(row);
      if (added != -std::numeric_limits<float>::infinity()) lse = MergeRows::total(lse, added);
    });
  }
};

void merge(ExecContext& exec, View part, View part_lse, MutView out, MutView lse) {
  check_attention_merge(part, part_lse, out, lse);
  if (part.numel() == 0) return;
  const std::int64_t cols = part.shape[3], rows = part.numel() / cols;
  const MergeRows where{part.shape[1],  part.shape[2],  floats(part_lse), floats(lse),
                        lse.strides[0], lse.strides[1], lse.strides[2]};
  dispatch_float(part.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      using Kernel = MergeValues<T, Width>;
      launch(exec, row_blocks<Kernel, Width>(rows, cols),
             Kernel{where, part.as<T>(), floats(out), rows, cols, out.strides[0], out.strides[1], out.strides[2]});
    };
    constexpr int width = pack_width<T>;
    bool packed = can_pack<width>(part.as<T>(), cols, cols);
    for (int i = 0; i < 3; ++i) packed = packed && can_pack<width>(floats(out), cols, out.strides[i]);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
  launch(exec, blocks_for<MergeLse>(rows), MergeLse{where, rows});
}

}  // namespace

void bind_attention_merge(KernelTable& table) { table.attention.merge.bind(merge); }

}  // namespace weft::cuda
