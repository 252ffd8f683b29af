// The products of one time step, shared among threads in each way, against plain loops in float64. oneDNN goes through
// the same in f32, so that its shares of the weight are tested where it has no bf16.
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/philox.hpp"
#include "core/cpu/backend.hpp"
#include "core/cpu/dnnl_products.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft::cpu {
namespace {

enum class Engine : std::uint8_t { tiles, dnnl };

struct Case {
  std::string name;
  Engine engine;
  Elem elem;
  Isa isa = Isa::portable;
};

void PrintTo(const Case& row, std::ostream* out) { *out << row.name; }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [isa, name] : {std::pair{Isa::portable, "portable"}, {Isa::v3, "v3"}, {Isa::v4, "v4"}}) {
    if (isa > best_isa()) continue;
    all.push_back({std::string("tiles_f32_") + name, Engine::tiles, Elem::f32, isa});
    all.push_back({std::string("tiles_bf16_") + name, Engine::tiles, Elem::bf16, isa});
  }
  if (dnnl_library().empty()) return all;
  all.push_back({"dnnl_f32", Engine::dnnl, Elem::f32});
  if (best_isa() == Isa::v4) all.push_back({"dnnl_bf16", Engine::dnnl, Elem::bf16});
  return all;
}

const MatrixKernels& matrix_of(Isa isa) {
  return isa == Isa::v4 ? v4::matrix_kernels : isa == Isa::v3 ? v3::matrix_kernels : portable::matrix_kernels;
}
const RecurrentCells& cells_of(Isa isa) {
  return isa == Isa::v4 ? v4::recurrent_cells : isa == Isa::v3 ? v3::recurrent_cells : portable::recurrent_cells;
}

class StepProducts : public testing::TestWithParam<Case> {
 protected:
  // Representable in bf16.
  static std::vector<float> values(std::int64_t count, std::uint64_t seed) {
    std::vector<float> result(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = static_cast<float>(bf16(uniform(philox_word(philox_key(seed), i)) - 0.5f));
    return result;
  }

  std::unique_ptr<StepProduct> make(const StepShape& shape, std::int64_t steps, int threads) const {
    if (GetParam().engine == Engine::dnnl) return make_dnnl_products()->steps(shape, steps, threads);
    return make_tile_steps(matrix_of(GetParam().isa), shape, steps, threads);
  }

  void expect_right(const StepShape& shape, int threads, StepSplit expected) {
    const std::int64_t b = shape.batch, h = shape.hidden, g = shape.gates, in = shape.gates_in(),
                       out = shape.gates_out(), depth = in * shape.units_in();
    const std::vector<float> r = values(g * shape.units * h, 1), left = values(b * depth, 2);
    const auto product = make(shape, 1000, threads);
    EXPECT_EQ(product->split().row_parts, expected.row_parts);
    EXPECT_EQ(product->split().unit_parts, expected.unit_parts);
    std::unique_ptr<PackedWeight> pack;
    const WeightRef weight{View(r.data(), {g * shape.units, h}, DType::f32), &pack, 7};
    ExecContext exec(kernels_, *memory_, threads);
    product->start(exec, weight, static_cast<char*>(exec.scratch(product->scratch_bytes())));
    double error = 0, norm = 0;
    for (int turn = 0; turn < 2; ++turn)
      for (int part = 0; part < product->split().parts(); ++part) {
        for (int p = 0; p < product->split().parts(); ++p) write_operand(*product, p, turn, left);
        const Range rows = product->rows_of(part), units = product->units_of(part);
        for (std::int64_t unit = units.begin; unit < units.end; unit += product->piece_units()) {
          const Range piece{unit, std::min(units.end, unit + product->piece_units())};
          const StepSums sums = product->run(part, piece, turn);
          for (std::int64_t row = rows.begin; row < rows.end; ++row)
            for (std::int64_t gate = 0; gate < out; ++gate)
              for (std::int64_t u = piece.begin; u < piece.end; ++u) {
                double right = 0;
                for (std::int64_t k = 0; k < depth; ++k) {
                  const std::int64_t at =
                      shape.direction == StepDirection::forward ? (gate * shape.units + u) * h + k : k * h + u;
                  right += static_cast<double>(left[static_cast<std::size_t>(row * depth + k)]) *
                           static_cast<double>(r[static_cast<std::size_t>(at)]);
                }
                const double found = static_cast<double>(
                    sums.data[(row - rows.begin) * sums.row_stride + gate * sums.gate_stride + u - piece.begin]);
                error += (found - right) * (found - right);
                norm += right * right;
              }
        }
      }
    EXPECT_LE(std::sqrt(error / norm), 1e-6)
        << b << " rows, " << shape.units << " of " << h << " units, " << threads << " threads";
  }

  // Gate by gate, as the cells do it.
  void write_operand(const StepProduct& product, int part, int turn, const std::vector<float>& left) const {
    const std::int64_t h = product.shape().units_in(), in = product.shape().gates_in();
    const Range units = product.units_in_of(part);
    for (std::int64_t group = 0; group < product.groups(part); ++group)
      for (std::int64_t gate = 0; gate < in; ++gate) {
        const Range rows = product.group_rows(part, group);
        StepOperand to = product.operand(part, group, turn);
        const std::int64_t k = gate * to.gate_step;
        to.data = static_cast<char*>(to.data) + (k / 16 * to.block_stride + k % 16) * (to.elem == Elem::f32 ? 4 : 2);
        cells_of(GetParam().isa)
            .operand(product.shape().elem, Elem::f32, left.data() + (rows.begin * in + gate) * h, in * h, rows.size(),
                     units.begin, units.end, to);
      }
  }

  KernelTable kernels_;
  std::unique_ptr<Allocator> memory_ = make_caching_allocator(make_host_memory());
};

TEST_P(StepProducts, OneThreadTakesAnyShape) {
  for (const StepDirection direction : {StepDirection::forward, StepDirection::backward})
    for (const auto& [batch, hidden, gates] :
         {std::array<std::int64_t, 3>{1, 1, 1}, {1, 48, 4}, {3, 17, 3}, {7, 32, 1}, {29, 70, 4}})
      expect_right({direction, batch, hidden, hidden, gates, GetParam().elem}, 1, {1, 1});
}

TEST_P(StepProducts, ThreadsShareTheRowsOfASmallWeight) {
  for (const StepDirection direction : {StepDirection::forward, StepDirection::backward})
    expect_right({direction, 13, 64, 64, 4, GetParam().elem}, 3, {3, 1});
}

TEST_P(StepProducts, ThreadsShareTheUnitsOfALargeWeight) {
  for (const StepDirection direction : {StepDirection::forward, StepDirection::backward})
    expect_right({direction, 5, 416, 416, 4, GetParam().elem}, 2, {1, 2});
}

TEST_P(StepProducts, ThreadsShareBothWhereOneIsNotEnough) {
  for (const StepDirection direction : {StepDirection::forward, StepDirection::backward})
    expect_right({direction, 9, 160, 160, 4, GetParam().elem}, 4, {2, 2});
}

TEST_P(StepProducts, APartOfTheUnitsTakesTheStatesOfAll) {
  for (const StepDirection direction : {StepDirection::forward, StepDirection::backward}) {
    for (const auto& [batch, units, hidden, gates] :
         {std::array<std::int64_t, 4>{1, 1, 3, 4}, {3, 17, 50, 3}, {29, 23, 70, 1}})
      expect_right({direction, batch, units, hidden, gates, GetParam().elem}, 1, {1, 1});
    expect_right({direction, 5, 208, 832, 4, GetParam().elem}, 2, {1, 2});
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, StepProducts, testing::ValuesIn(cases()),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace weft::cpu
