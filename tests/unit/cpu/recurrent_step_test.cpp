// Single steps of all units are the pass over all steps, with threads that share the rows or the units.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/base/philox.hpp"
#include "core/tensor/tensor.hpp"
#include "tests/unit/core/cpu_engine.hpp"

namespace weft::cpu {
namespace {

struct Case {
  std::string name;
  RecurrentCell cell;
  std::int64_t batch, hidden;
};

void PrintTo(const Case& row, std::ostream* out) { *out << row.name; }

class RecurrentSteps : public testing::TestWithParam<Case> {
 protected:
  static constexpr std::int64_t steps = 3;
  bool lstm() const { return GetParam().cell == RecurrentCell::lstm; }
  bool gru() const { return GetParam().cell == RecurrentCell::gru; }

  Tensor make(Shape shape) { return Tensor::empty(*engine_.memory, shape, DType::f32, MemoryUse::activation); }
  Tensor random(Shape shape, std::uint64_t seed, float scale = 1) {
    const Tensor result = make(shape);
    for (std::int64_t i = 0; i < result.numel(); ++i)
      result.mut().as<float>()[i] =
          scale * (uniform(philox_word(philox_key(seed), static_cast<std::uint64_t>(i))) - 0.5f);
    return result;
  }
  static void expect_same(const Tensor& found, const Tensor& right, const char* what) {
    double apart = 0, size = 0;
    for (std::int64_t i = 0; i < right.numel(); ++i) {
      apart += std::pow(found.view().as<float>()[i] - right.view().as<float>()[i], 2);
      size += std::pow(right.view().as<float>()[i], 2);
    }
    EXPECT_LE(std::sqrt(apart), 1e-6 * std::sqrt(size)) << what;
    EXPECT_GT(size, 0) << what;
  }

  CpuEngine engine_{2};
};

TEST_P(RecurrentSteps, OfAllUnitsAreThePassOverAllSteps) {
  const auto& [name, cell, b, h] = GetParam();
  const std::int64_t width = gates_of(cell) * h;
  ExecContext& exec = engine_.exec;
  const RecurrentKernels& kernels = engine_.kernels.recurrent;
  const Tensor p = random({b, steps, width}, 1), dy = random({b, steps, h}, 2);
  const Tensor w = random({width, h}, 3, 4 / std::sqrt(static_cast<float>(h)));
  const Tensor h_first = random({b, h}, 4), c_first = random({b, h}, 5), dc_last = random({b, h}, 6);
  std::unique_ptr<PackedWeight> pack;

  struct Made {
    Tensor gates, candidate, cells, y, h_last, c_last, dgates, dhidden, dh_first, carry;
  };
  const auto made = [&] {
    return Made{make({b, steps, width}),
                make({b, steps, h}),
                make({b, steps, h}),
                make({b, steps, h}),
                make({b, h}),
                make({b, h}),
                make({b, steps, width}),
                make({b, steps, width}),
                make({b, h}),
                make({b, h})};
  };
  const auto forward = [&](const Made& to) {
    return RecurrentForward{cell,
                            p.view(),
                            {w.view(), &pack, 1},
                            {},
                            h_first.view(),
                            lstm() ? c_first.view() : View{},
                            to.gates.mut(),
                            gru() ? to.candidate.mut() : MutView{},
                            lstm() ? to.cells.mut() : MutView{},
                            to.y.mut(),
                            to.h_last.mut(),
                            lstm() ? to.c_last.mut() : MutView{}};
  };
  const auto backward = [&](const Made& from) {
    RecurrentBackward job;
    job.cell = cell;
    job.gates = from.gates.view();
    job.candidate = from.candidate.view();
    job.cells = from.cells.view();
    job.y = from.y.view();
    job.weight = {w.view(), &pack, 1};
    job.h_first = h_first.view();
    if (lstm()) job.c_first = c_first.view();
    job.dy = dy.view();
    if (lstm()) job.dc_last = dc_last.view();
    job.dgates = from.dgates.mut();
    if (gru()) job.dhidden = from.dhidden.mut();
    return job;
  };

  const Made whole = made();
  kernels.forward(exec, forward(whole));
  RecurrentBackward job = backward(whole);
  job.dh_first = whole.dh_first.mut();
  kernels.backward(exec, job);

  const Made stepped = made();
  const Tensor before = make({b, steps, h}), dh = make({b, h}), dh_before = make({b, h});
  // Rows `stride` apart, as the state that step t begins with.
  const auto put = [&](const float* from, std::int64_t stride, std::int64_t t) {
    for (std::int64_t row = 0; row < b; ++row)
      std::copy_n(from + row * stride, h, before.mut().as<float>() + (row * steps + t) * h);
  };
  put(h_first.view().as<float>(), h, 0);
  for (std::int64_t t = 0; t < steps; ++t) {
    kernels.forward_step(exec, forward(stepped), t, before.view());
    if (t + 1 < steps) put(stepped.y.view().as<float>() + t * h, steps * h, t + 1);
  }
  for (std::int64_t t = steps - 1; t >= 0; --t) {
    kernels.backward_step(exec, backward(stepped), t, t + 1 < steps ? dh.view() : View{}, stepped.carry.mut(),
                          dh_before.mut());
    std::copy_n(dh_before.view().as<float>(), b * h, dh.mut().as<float>());
  }
  expect_same(stepped.gates, whole.gates, "gates");
  expect_same(stepped.y, whole.y, "y");
  expect_same(stepped.h_last, whole.h_last, "h_last");
  if (lstm()) expect_same(stepped.c_last, whole.c_last, "c_last");
  expect_same(stepped.dgates, whole.dgates, "dgates");
  if (gru()) engine_.kernels.elementwise.add(exec, dh.view(), stepped.carry.view(), dh.mut());
  expect_same(dh, whole.dh_first, "dh_first");
}

// A weight that a core's cache holds is given to each thread whole, of a larger one each keeps its share.
INSTANTIATE_TEST_SUITE_P(
    Table, RecurrentSteps,
    testing::Values(Case{"elman_rows", RecurrentCell::elman, 64, 200},
                    Case{"elman_units", RecurrentCell::elman, 4, 600}, Case{"lstm_rows", RecurrentCell::lstm, 29, 210},
                    Case{"lstm_units", RecurrentCell::lstm, 5, 416}, Case{"gru_rows", RecurrentCell::gru, 29, 210},
                    Case{"gru_units", RecurrentCell::gru, 5, 416}, Case{"one", RecurrentCell::gru, 1, 1}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace weft::cpu
