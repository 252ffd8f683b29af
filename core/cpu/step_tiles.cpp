// Step products by the register tiles of vec/matrix.hpp. R is packed into panels of tile_cols units; the left operand is
// written in the tiles' own layout by the cells of the step before, so nothing is packed from step to step.
#include <algorithm>
#include <array>
#include <cstring>

#include "core/cpu/parallel.hpp"
#include "core/cpu/step_product.hpp"

namespace weft::cpu {

namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

// Panels are taken in chunks that stay in the first-level cache for all row groups. Meanwhile the next chunk is fetched, if
// the part's share of the weight is too large to have stayed near.
constexpr std::int64_t chunk_depth = 512, near_bytes = 256 << 10;

constexpr std::int64_t part_begin(std::int64_t total, std::int64_t parts, std::int64_t i) { return total * i / parts; }

/// f32 panels of R for both directions.
class TileWeight final : public PackedWeight {
 public:
  explicit TileWeight(std::int64_t tile_cols) : tile_cols_(tile_cols) {}

  struct Copy {
    std::unique_ptr<StepBuffer> buffer;
    std::optional<std::uint64_t> version;
    Round round = Round::none;
  };
  Copy& copy(StepDirection direction) { return copies_[direction == StepDirection::forward ? 0 : 1]; }
  std::int64_t tile_cols() const { return tile_cols_; }

 private:
  std::int64_t tile_cols_;
  std::array<Copy, 2> copies_;
};

class TileSteps final : public StepProduct {
 public:
  TileSteps(const MatrixKernels& kernels, const StepShape& shape, std::int64_t steps, int threads)
      : StepProduct(shape, kernels.tile_cols, steps, threads), kernels_(kernels), threads_(threads),
        padded_units_(round_up(shape.units_in(), contraction_unit)), depth_(shape.gates_in() * padded_units_),
        panels_(ceil_div(shape.units_out(), kernels.tile_cols) * shape.gates_out()),
        rows_most_(ceil_div(shape.batch, split_.row_parts)), tiles_most_(ceil_div(rows_most_, kernels.tile_rows) + 1),
        tile_floats_(depth_ * kernels.tile_rows),
        sum_floats_(round_up(shape.gates_out() * rows_most_ * kernels.tile_cols, 16)) {}

  std::size_t scratch_bytes() const override {
    return sizeof(float) * static_cast<std::size_t>(2 * split_.row_parts * tiles_most_ * tile_floats_ +
                                                    split_.parts() * sum_floats_) +
           weight_bytes();
  }

  void start(ExecContext& exec, const WeightRef& weight, char* scratch) override {
    operands_ = reinterpret_cast<float*>(scratch);
    sums_ = operands_ + 2 * split_.row_parts * tiles_most_ * tile_floats_;
    std::fill(operands_, sums_, 0.0f);
    if (!weight.pack) {
      auto* own = sums_ + split_.parts() * sum_floats_;
      pack(weight.value, own);
      weight_ = own;
      return;
    }
    auto& packed = packed_in<TileWeight>(
        weight, [&](const TileWeight& w) { return w.tile_cols() == kernels_.tile_cols; },
        [&] { return std::make_unique<TileWeight>(kernels_.tile_cols); });
    TileWeight::Copy& copy = packed.copy(shape_.direction);
    if (!copy.buffer || copy.buffer->bytes() != weight_bytes())
      copy = {std::make_unique<StepBuffer>(exec.memory(), weight_bytes()), std::nullopt, rounding()};
    auto* panels = reinterpret_cast<float*>(copy.buffer->data());
    if (copy.version != weight.version || copy.round != rounding()) pack(weight.value, panels);
    copy.version = weight.version;
    copy.round = rounding();
    weight_ = panels;
  }

  std::int64_t piece_units() const override { return kernels_.tile_cols; }
  std::int64_t groups(int part) const override { return ceil_div(rows_of(part).size(), kernels_.tile_rows); }
  // Tiles differ by one row at most: a short last tile would wait for the latency of its few sums.
  Range group_rows(int part, std::int64_t group) const override {
    const Range rows = rows_of(part);
    const std::int64_t tiles = groups(part);
    return {rows.begin + part_begin(rows.size(), tiles, group), rows.begin + part_begin(rows.size(), tiles, group + 1)};
  }
  StepOperand operand(int part, std::int64_t group, int turn) const override {
    return {tile(part, group, turn), Elem::f32, contraction_unit, kernels_.tile_rows * contraction_unit, padded_units_};
  }

  StepSums run(int part, Range units, int turn) override {
    const std::int64_t cols = kernels_.tile_cols, gates = shape_.gates_out();
    const std::int64_t first = rows_of(part).begin, rows = rows_of(part).size();
    float* sums = sums_ + part * sum_floats_;
    TileArgs args{};
    args.layout = TileLayout::by_row;
    args.cols = cols;
    args.elem = Elem::f32;
    args.out_stride = cols;
    const Range mine = units_of(part);
    const float* begin = weight_ + mine.begin / cols * gates * depth_ * cols;
    const float* end = weight_ + ceil_div(mine.end, cols) * gates * depth_ * cols;
    const float* panel = weight_ + units.begin / cols * gates * depth_ * cols;
    const bool streams = (end - begin) * std::int64_t{sizeof(float)} > near_bytes;
    const std::int64_t lines = contraction_unit * cols * std::int64_t{sizeof(float)} / 64;
    args.ahead_lines = ceil_div(lines, groups(part));
    for (std::int64_t gate = 0; gate < gates; ++gate)
      for (std::int64_t k = 0; k < depth_; k += chunk_depth) {
        args.k = std::min(chunk_depth, depth_ - k);
        args.b = panel;
        panel += args.k * cols;
        const float* next = panel < end ? panel : begin;
        for (std::int64_t group = 0; group < groups(part); ++group) {
          const Range of_group = group_rows(part, group);
          args.a = tile(part, group, turn) + k * kernels_.tile_rows;
          args.rows = of_group.size();
          args.out = sums + (gate * rows + of_group.begin - first) * cols;
          args.residual = k > 0 ? args.out : nullptr;
          args.residual_stride = cols;
          args.ahead = streams ? next + group * args.ahead_lines * (args.k / contraction_unit) * 16 : nullptr;
          kernels_.tile(args);
        }
      }
    return {sums, cols, rows * cols};
  }

 private:
  Round rounding() const { return shape_.elem == Elem::bf16 ? Round::bf16 : Round::none; }
  std::size_t weight_bytes() const {
    return sizeof(float) * static_cast<std::size_t>(panels_ * depth_ * kernels_.tile_cols);
  }
  float* tile(int part, std::int64_t group, int turn) const {
    const std::int64_t row_part = part / split_.unit_parts;
    return operands_ + ((turn * split_.row_parts + row_part) * tiles_most_ + group) * tile_floats_;
  }

  // Panels of a piece's gates lie one after another, in the order in which `run` reads them.
  void pack(const View& weight, float* panels) const {
    const auto* r = weight.as<float>();
    const std::int64_t cols = kernels_.tile_cols, hidden = shape_.hidden, gates = shape_.gates_out();
    const std::int64_t units = shape_.units_out();
    for_ranges(threads_for_bytes(), panels_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        const std::int64_t unit = panel / gates * cols, gate = panel % gates;
        const std::int64_t count = std::min(cols, units - unit);
        float* to = panels + panel * depth_ * cols;
        if (shape_.direction == StepDirection::forward) {
          kernels_.pack_panel_transposed(rounding(), r + (gate * units + unit) * hidden, hidden, hidden, count, to);
          continue;
        }
        for (std::int64_t in = 0; in < shape_.gates_in(); ++in)
          kernels_.pack_panel(Elem::f32, rounding(), r + in * shape_.units * hidden + unit, hidden, shape_.units, count,
                              to + in * padded_units_ * cols);
      }
    });
  }
  int threads_for_bytes() const {
    const auto bytes = static_cast<std::int64_t>(weight_bytes());
    return static_cast<int>(std::clamp<std::int64_t>(bytes / bytes_worth_a_thread, 1, threads_));
  }

  const MatrixKernels& kernels_;
  int threads_;
  std::int64_t padded_units_, depth_, panels_, rows_most_, tiles_most_, tile_floats_, sum_floats_;
  float* operands_ = nullptr;
  float* sums_ = nullptr;
  const float* weight_ = nullptr;
};

}  // namespace

StepSplit split_steps(const StepShape& shape, std::int64_t unit_align, std::int64_t steps, int threads) {
  constexpr double flops_worth_a_thread = 2e6, flops_worth_a_barrier = 2e5;
  constexpr std::int64_t cache_bytes = 1 << 20, least_rows = 4;
  const std::int64_t weights = shape.gates * shape.units * shape.hidden;
  const double step = 2.0 * static_cast<double>(weights) * static_cast<double>(shape.batch);
  const auto at_most = [&](double most) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(most, 1e6)), 1, threads);
  };
  const std::int64_t all = at_most(step * static_cast<double>(steps) / flops_worth_a_thread);
  const std::int64_t row_parts = std::clamp<std::int64_t>(shape.batch / least_rows, 1, all);
  const std::int64_t unit_parts =
      std::min({all, ceil_div(shape.units_out(), unit_align), at_most(step / flops_worth_a_barrier)});
  StepSplit split;
  if (weights * (shape.elem == Elem::bf16 ? 2 : 4) <= cache_bytes) {
    split.row_parts = static_cast<int>(row_parts);
    split.unit_parts = static_cast<int>(std::clamp<std::int64_t>(all / row_parts, 1, unit_parts));
  } else {
    split.unit_parts = static_cast<int>(unit_parts);
    split.row_parts = static_cast<int>(std::clamp<std::int64_t>(all / unit_parts, 1, row_parts));
  }
  return split;
}

Range StepProduct::rows_of(int part) const {
  const std::int64_t i = part / split_.unit_parts;
  return {part_begin(shape_.batch, split_.row_parts, i), part_begin(shape_.batch, split_.row_parts, i + 1)};
}

Range StepProduct::units_of(int part) const {
  const std::int64_t i = part % split_.unit_parts, blocks = ceil_div(shape_.units_out(), unit_align_);
  const auto border = [&](std::int64_t at) {
    return std::min(shape_.units_out(), part_begin(blocks, split_.unit_parts, at) * unit_align_);
  };
  return {border(i), border(i + 1)};
}

Range StepProduct::units_in_of(int part) const {
  constexpr std::int64_t line = 16;  // of an operand
  const std::int64_t i = part % split_.unit_parts, lines = ceil_div(shape_.units_in(), line);
  const auto border = [&](std::int64_t at) {
    return std::min(shape_.units_in(), part_begin(lines, split_.unit_parts, at) * line);
  };
  return {border(i), border(i + 1)};
}

std::unique_ptr<StepProduct> make_tile_steps(const MatrixKernels& kernels, const StepShape& shape, std::int64_t steps,
                                             int threads) {
  return std::make_unique<TileSteps>(kernels, shape, steps, threads);
}

}  // namespace weft::cpu
