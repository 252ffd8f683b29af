// The linear kernels of every instruction set that this processor has, against plain loops in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/base/philox.hpp"
#include "core/cpu/linear.hpp"
#include "core/cpu/state.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft {
namespace {

struct Case {
  cpu::Isa isa;
  DType dtype;
  int threads;
  cpu::Bf16Products bf16 = cpu::Bf16Products::vector;
};

/// A matrix in f32 or bf16 with rows `stride` apart, and its values in float64. The values are representable in bf16, so
/// that rounding a master weight changes nothing.
class Values {
 public:
  Values(std::int64_t rows, std::int64_t cols, DType dtype, std::uint64_t seed, std::int64_t gap = 0)
      : rows_(rows), cols_(cols), stride_(cols + gap), dtype_(dtype),
        bytes_(static_cast<std::size_t>(rows * stride_) * size_of(dtype)) {
    const PhiloxKey key = philox_key(seed);
    for (std::int64_t i = 0; i < rows * stride_; ++i) {
      const float value = uniform(philox_word(key, static_cast<std::uint64_t>(i))) - 0.5f;
      set(i, static_cast<float>(bf16(value)));
    }
  }
  void fill(float value) {
    for (std::int64_t i = 0; i < rows_ * stride_; ++i) set(i, value);
  }
  double at(std::int64_t r, std::int64_t c) const {
    const std::int64_t i = r * stride_ + c;
    if (dtype_ == DType::bf16) return static_cast<float>(reinterpret_cast<const bf16*>(bytes_.data())[i]);
    return reinterpret_cast<const float*>(bytes_.data())[i];
  }
  MutView view() {
    MutView v(bytes_.data(), Shape{rows_, cols_}, dtype_);
    v.strides[0] = stride_;
    return v;
  }
  MutView vector() { return {bytes_.data(), Shape{rows_ * cols_}, dtype_}; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  void set(std::int64_t i, float value) {
    if (dtype_ == DType::bf16)
      reinterpret_cast<bf16*>(bytes_.data())[i] = bf16(value);
    else
      reinterpret_cast<float*>(bytes_.data())[i] = value;
  }
  std::int64_t rows_, cols_, stride_;
  DType dtype_;
  std::vector<char> bytes_;
};

using Doubles = std::vector<double>;

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

/// ‖found − expected‖ / ‖expected‖.
double error_of(const Values& found, const Doubles& expected) {
  double difference = 0, norm = 0;
  for (std::int64_t r = 0; r < found.rows(); ++r)
    for (std::int64_t c = 0; c < found.cols(); ++c) {
      const double e = expected[static_cast<std::size_t>(r * found.cols() + c)];
      difference += (found.at(r, c) - e) * (found.at(r, c) - e);
      norm += e * e;
    }
  return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-30);
}

class Linear : public testing::TestWithParam<Case> {
 protected:
  Linear() {
    cpu::bind_linear(table_, GetParam().isa);
    exec_ = std::make_unique<ExecContext>(table_, *memory_, GetParam().threads);
    exec_->backend = std::make_unique<cpu::CpuState>(GetParam().bf16);
  }
  const LinearKernels& linear() const { return table_.linear; }
  ExecContext& exec() { return *exec_; }
  DType dtype() const { return GetParam().dtype; }
  double tolerance() const { return dtype() == DType::f32 ? 1e-5 : 1e-2; }

  std::unique_ptr<Allocator> memory_ = make_caching_allocator(make_host_memory());
  KernelTable table_;
  std::unique_ptr<ExecContext> exec_;
};

struct Sizes {
  std::int64_t m, n, k;
};
const Sizes all_sizes[] = {{1, 1, 1},   {1, 70, 33},  {3, 5, 7},     {8, 33, 17},   {9, 31, 16},    {15, 64, 1},
                           {29, 1, 48}, {64, 96, 40}, {57, 97, 131}, {131, 50, 65}, {33, 40, 2500}, {9, 1600, 1030}};

TEST_P(Linear, ForwardAddsBiasAndResidual) {
  for (const auto& [m, n, k] : all_sizes) {
    Values x(m, k, dtype(), 1, 3), w(n, k, DType::f32, 2), bias(1, n, DType::f32, 3), residual(m, n, dtype(), 4),
        y(m, n, dtype(), 5, 1);
    Doubles plain, full;
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t p = 0; p < k; ++p) sum += x.at(i, p) * w.at(j, p);
        plain.push_back(sum);
        full.push_back(sum + bias.at(0, j) + residual.at(i, j));
      }
    linear().forward(exec(), x.view(), {w.view()}, {}, Epilogue::none, {}, {}, y.view());
    EXPECT_LT(error_of(y, plain), tolerance()) << m << "x" << n << "x" << k;
    linear().forward(exec(), x.view(), {w.view()}, bias.vector(), Epilogue::none, residual.view(), {}, y.view());
    EXPECT_LT(error_of(y, full), tolerance()) << m << "x" << n << "x" << k;
    linear().forward(exec(), x.view(), {w.view()}, bias.vector(), Epilogue::none, residual.view(), {}, residual.view());
    EXPECT_LT(error_of(residual, full), tolerance()) << "in place, " << m << "x" << n << "x" << k;
  }
}

TEST_P(Linear, ForwardStoresTheValueBeforeGelu) {
  for (const auto& [m, n, k] : all_sizes) {
    Values x(m, k, dtype(), 1), w(n, k, DType::f32, 2), bias(1, n, DType::f32, 3), pre(m, n, dtype(), 4),
        y(m, n, dtype(), 5);
    Doubles before, after;
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = bias.at(0, j);
        for (std::int64_t p = 0; p < k; ++p) sum += x.at(i, p) * w.at(j, p);
        before.push_back(sum);
        after.push_back(gelu(sum));
      }
    linear().forward(exec(), x.view(), {w.view()}, bias.vector(), Epilogue::gelu, {}, pre.view(), y.view());
    EXPECT_LT(error_of(pre, before), tolerance()) << m << "x" << n << "x" << k;
    EXPECT_LT(error_of(y, after), tolerance()) << m << "x" << n << "x" << k;
    y.fill(0);
    linear().forward(exec(), x.view(), {w.view()}, bias.vector(), Epilogue::gelu, {}, {}, y.view());
    EXPECT_LT(error_of(y, after), tolerance()) << "without pre, " << m << "x" << n << "x" << k;
  }
}

TEST_P(Linear, GeluHoldsFarFromZero) {
  const std::int64_t n = 401;
  Values x(1, 1, dtype(), 1), w(n, 1, DType::f32, 2), y(1, n, dtype(), 3);
  x.fill(1);
  for (std::int64_t j = 0; j < n; ++j) static_cast<float*>(w.view().data)[j] = 0.25f * static_cast<float>(j - 200);
  linear().forward(exec(), x.view(), {w.view()}, {}, Epilogue::gelu, {}, {}, y.view());
  for (std::int64_t j = 0; j < n; ++j) {
    const double exact = gelu(w.at(j, 0));
    EXPECT_NEAR(y.at(0, j), exact, tolerance() * std::abs(exact) + 1e-6) << w.at(j, 0);
  }
}

TEST_P(Linear, BackwardDataOverwritesOrAdds) {
  for (const auto& [m, n, k] : all_sizes) {
    Values dy(m, n, dtype(), 1, 2), w(n, k, DType::f32, 2), dx(m, k, dtype(), 3, 5);
    Doubles fresh, added;
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t p = 0; p < k; ++p) {
        double sum = 0;
        for (std::int64_t j = 0; j < n; ++j) sum += dy.at(i, j) * w.at(j, p);
        fresh.push_back(sum);
        added.push_back(sum + dx.at(i, p));
      }
    linear().backward_data(exec(), dy.view(), {w.view()}, Write::add, dx.view());
    EXPECT_LT(error_of(dx, added), tolerance()) << m << "x" << n << "x" << k;
    dx.fill(std::numeric_limits<float>::quiet_NaN());
    linear().backward_data(exec(), dy.view(), {w.view()}, Write::overwrite, dx.view());
    EXPECT_LT(error_of(dx, fresh), tolerance()) << m << "x" << n << "x" << k;
  }
}

TEST_P(Linear, BackwardWeightOverwritesOrAdds) {
  for (const auto& [n, k, m] : all_sizes) {
    Values dy(m, n, dtype(), 1, 7), x(m, k, dtype(), 2), dw(n, k, DType::f32, 3), db(1, n, DType::f32, 4);
    Doubles fresh, added, bias_fresh, bias_added;
    for (std::int64_t j = 0; j < n; ++j) {
      double column = 0;
      for (std::int64_t i = 0; i < m; ++i) column += dy.at(i, j);
      bias_fresh.push_back(column);
      bias_added.push_back(column + db.at(0, j));
      for (std::int64_t p = 0; p < k; ++p) {
        double sum = 0;
        for (std::int64_t i = 0; i < m; ++i) sum += dy.at(i, j) * x.at(i, p);
        fresh.push_back(sum);
        added.push_back(sum + dw.at(j, p));
      }
    }
    linear().backward_weight(exec(), dy.view(), x.view(), Write::add, dw.view(), db.vector());
    EXPECT_LT(error_of(dw, added), tolerance()) << m << "x" << n << "x" << k;
    EXPECT_LT(error_of(db, bias_added), tolerance()) << m << "x" << n << "x" << k;
    dw.fill(std::numeric_limits<float>::quiet_NaN());
    db.fill(std::numeric_limits<float>::quiet_NaN());
    linear().backward_weight(exec(), dy.view(), x.view(), Write::overwrite, dw.view(), db.vector());
    EXPECT_LT(error_of(dw, fresh), tolerance()) << m << "x" << n << "x" << k;
    EXPECT_LT(error_of(db, bias_fresh), tolerance()) << m << "x" << n << "x" << k;
    linear().backward_weight(exec(), dy.view(), x.view(), Write::overwrite, dw.view(), {});
    EXPECT_LT(error_of(dw, fresh), tolerance()) << "without bias, " << m << "x" << n << "x" << k;
  }
}

TEST_P(Linear, NoRowsZeroOrKeepTheGradients) {
  Values x(0, 6, dtype(), 1), dy(0, 5, dtype(), 1), w(5, 6, DType::f32, 2), dw(5, 6, DType::f32, 3),
      db(1, 5, DType::f32, 4);
  const auto kept = dw.bytes();
  linear().forward(exec(), x.view(), {w.view()}, {}, Epilogue::none, {}, {}, dy.view());
  linear().backward_data(exec(), dy.view(), {w.view()}, Write::overwrite, x.view());
  linear().backward_weight(exec(), dy.view(), x.view(), Write::add, dw.view(), db.vector());
  EXPECT_EQ(dw.bytes(), kept);
  linear().backward_weight(exec(), dy.view(), x.view(), Write::overwrite, dw.view(), db.vector());
  EXPECT_EQ(dw.bytes(), std::vector<char>(dw.bytes().size(), 0));
  EXPECT_EQ(db.bytes(), std::vector<char>(db.bytes().size(), 0));
}

TEST_P(Linear, ANewVersionOfTheWeightIsSeen) {
  const std::int64_t m = 40, n = 48, k = 32;
  Values x(m, k, dtype(), 1), w(n, k, DType::f32, 2), y(m, n, dtype(), 3), dx(m, k, dtype(), 4);
  std::unique_ptr<PackedWeight> pack;
  WeightRef ref{w.view(), &pack, 1};
  linear().forward(exec(), x.view(), ref, {}, Epilogue::none, {}, {}, y.view());
  linear().backward_data(exec(), y.view(), ref, Write::overwrite, dx.view());
  w.fill(0.25f);
  ref.version = 2;
  linear().forward(exec(), x.view(), ref, {}, Epilogue::none, {}, {}, y.view());
  linear().backward_data(exec(), x.view(), {Values(k, n, DType::f32, 9).view(), nullptr, 7}, Write::overwrite,
                         y.view());
  linear().forward(exec(), x.view(), ref, {}, Epilogue::none, {}, {}, y.view());
  Doubles expected;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t p = 0; p < k; ++p) sum += x.at(i, p) * 0.25;
      expected.push_back(sum);
    }
  EXPECT_LT(error_of(y, expected), tolerance());
}

TEST_P(Linear, MastersAreRoundedToTheComputeType) {
  for (std::int64_t m : {2, 40}) {
    const std::int64_t n = 20, k = 20;
    Values x(m, k, dtype(), 1), w(n, k, DType::f32, 2), fine(n, k, DType::f32, 2), y(m, n, dtype(), 3),
        z(m, n, dtype(), 4);
    for (std::int64_t i = 0; i < n * k; ++i) static_cast<float*>(fine.view().data)[i] *= 1.0001f;
    for (const bool data_gradient : {false, true}) {
      for (auto& [weight, out] : {std::pair{&w, &y}, std::pair{&fine, &z}}) {
        if (data_gradient)
          linear().backward_data(exec(), x.view(), {weight->view()}, Write::overwrite, out->view());
        else
          linear().forward(exec(), x.view(), {weight->view()}, {}, Epilogue::none, {}, {}, out->view());
      }
      EXPECT_EQ(y.bytes() == z.bytes(), dtype() == DType::bf16) << m << " rows";
    }
  }
}

TEST_P(Linear, TheNumberOfThreadsDoesNotChangeABit) {
  const std::int64_t m = 150, n = 130, k = 1200;
  Values x(m, k, dtype(), 1), w(n, k, DType::f32, 2), y(m, n, dtype(), 3), dw(n, k, DType::f32, 4),
      db(1, n, DType::f32, 5);
  std::vector<std::vector<char>> first;
  for (int threads : {1, 2, 3, 6}) {
    ExecContext other(table_, *memory_, threads);
    other.backend = std::make_unique<cpu::CpuState>(cpu::Bf16Products::vector);
    linear().forward(other, x.view(), {w.view()}, {}, Epilogue::gelu, {}, {}, y.view());
    linear().backward_weight(other, y.view(), x.view(), Write::overwrite, dw.view(), db.vector());
    const std::vector<std::vector<char>> bits{y.bytes(), dw.bytes(), db.bytes()};
    if (first.empty()) first = bits;
    EXPECT_EQ(bits, first) << threads << " threads";
  }
}

struct LossCase {
  std::int64_t m, v, d;
};

TEST_P(Linear, CrossEntropyGivesLossAndGradients) {
  for (const auto& [m, v, d] : {LossCase{1, 1, 1}, LossCase{7, 33, 5}, LossCase{70, 257, 40}, LossCase{20, 5000, 24},
                                LossCase{130, 131072, 2}}) {
    Values h(m, d, dtype(), 1, 2), w(v, d, DType::f32, 2), dh(m, d, dtype(), 3, 1), dw(v, d, DType::f32, 4),
        loss(1, m, DType::f32, 5), weights(1, m, DType::f32, 6);
    std::vector<std::int32_t> targets;
    for (std::int64_t r = 0; r < m; ++r) targets.push_back(static_cast<std::int32_t>(r * 7919 % v));
    if (m > 5) {
      targets[3] = -1;
      static_cast<float*>(weights.view().data)[5] = 0;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(v * d); ++i) static_cast<float*>(w.view().data)[i] *= 8;
    const float scale = 0.37f;
    Doubles losses, hidden_gradient(static_cast<std::size_t>(m * d)), weight_gradient;
    for (std::int64_t i = 0; i < v; ++i)
      for (std::int64_t c = 0; c < d; ++c) weight_gradient.push_back(dw.at(i, c));
    for (std::int64_t r = 0; r < m; ++r) {
      const std::int64_t target = targets[static_cast<std::size_t>(r)];
      if (target < 0 || weights.at(0, r) == 0) {
        losses.push_back(0);
        continue;
      }
      Doubles logits;
      double total = 0;
      for (std::int64_t i = 0; i < v; ++i) {
        double sum = 0;
        for (std::int64_t c = 0; c < d; ++c) sum += h.at(r, c) * w.at(i, c);
        logits.push_back(sum);
        total += std::exp(sum);
      }
      losses.push_back(std::log(total) - logits[static_cast<std::size_t>(target)]);
      for (std::int64_t i = 0; i < v; ++i) {
        const double g =
            scale * weights.at(0, r) * (std::exp(logits[static_cast<std::size_t>(i)]) / total - (i == target ? 1 : 0));
        for (std::int64_t c = 0; c < d; ++c) {
          hidden_gradient[static_cast<std::size_t>(r * d + c)] += g * w.at(i, c);
          weight_gradient[static_cast<std::size_t>(i * d + c)] += g * h.at(r, c);
        }
      }
    }
    const View target_view(targets.data(), Shape{m}, DType::i32);
    linear().cross_entropy(exec(), h.view(), {w.view()}, target_view, weights.vector(), scale, Write::add,
                           loss.vector(), dh.view(), dw.view());
    const double bound = m == 1 ? 1 : tolerance();  // one class: nothing but rounding is left
    EXPECT_LT(error_of(loss, losses), v == 1 ? 1 : tolerance()) << m << " rows, " << v << " classes";
    EXPECT_LT(error_of(dh, hidden_gradient), bound) << m << " rows, " << v << " classes";
    EXPECT_LT(error_of(dw, weight_gradient), tolerance()) << m << " rows, " << v << " classes";
    const auto with_gradient = loss.bytes();
    loss.fill(-1);
    linear().cross_entropy(exec(), h.view(), {w.view()}, target_view, weights.vector(), scale, Write::overwrite,
                           loss.vector(), {}, {});
    EXPECT_EQ(loss.bytes(), with_gradient) << "without gradients";
    const auto gradient = dw.bytes();
    dw.fill(std::numeric_limits<float>::quiet_NaN());
    linear().cross_entropy(exec(), h.view(), {w.view()}, target_view, weights.vector(), 0.0f, Write::overwrite,
                           loss.vector(), dh.view(), dw.view());
    EXPECT_EQ(dw.bytes(), std::vector<char>(gradient.size(), 0)) << "scale 0";
  }
}

TEST_P(Linear, CrossEntropyHoldsForLargeLogits) {
  Values h(2, 1, dtype(), 1), w(3, 1, DType::f32, 2), loss(1, 2, DType::f32, 3), weights(1, 2, DType::f32, 4);
  h.fill(1);
  weights.fill(1);
  auto* rows = static_cast<float*>(w.view().data);
  rows[0] = 1000, rows[1] = -1000, rows[2] = 998;
  std::int32_t targets[] = {0, 1};
  linear().cross_entropy(exec(), h.view(), {w.view()}, View(targets, Shape{2}, DType::i32), weights.vector(), 1,
                         Write::overwrite, loss.vector(), {}, {});
  const double top = w.at(0, 0), third = dtype() == DType::bf16 ? 1000 : 998;
  const double lse = top + std::log(1 + std::exp(third - top));
  EXPECT_NEAR(loss.at(0, 0), lse - top, 1e-5);
  EXPECT_NEAR(loss.at(0, 1), lse + 1000, 1e-3);
}

TEST_P(Linear, ATargetOutsideTheVocabularyIsRefused) {
  Values h(1, 2, dtype(), 1), w(3, 2, DType::f32, 2), loss(1, 1, DType::f32, 3), weights(1, 1, DType::f32, 4);
  std::int32_t target = 3;
  EXPECT_THROW(linear().cross_entropy(exec(), h.view(), {w.view()}, View(&target, Shape{1}, DType::i32),
                                      weights.vector(), 1, Write::overwrite, loss.vector(), {}, {}),
               Error);
}

TEST_P(Linear, ShapesThatDoNotFitAreRefused) {
  Values x(4, 6, dtype(), 1), w(5, 7, DType::f32, 2), y(4, 5, dtype(), 3), dw(5, 6, DType::f32, 3);
  EXPECT_THROW(linear().forward(exec(), x.view(), {w.view()}, {}, Epilogue::none, {}, {}, y.view()), Error);
  EXPECT_THROW(linear().backward_data(exec(), y.view(), {w.view()}, Write::overwrite, x.view()), Error);
  EXPECT_THROW(linear().backward_weight(exec(), x.view(), y.view(), Write::overwrite, dw.view(), {}), Error);
}

TEST_P(Linear, ASteadyStepAllocatesNothing) {
  Values x(64, 96, dtype(), 1), w(80, 96, DType::f32, 2), y(64, 80, dtype(), 3), dw(80, 96, DType::f32, 4);
  std::unique_ptr<PackedWeight> pack;
  const auto step = [&](std::uint64_t version) {
    const WeightRef ref{w.view(), &pack, version};
    linear().forward(exec(), x.view(), ref, {}, Epilogue::none, {}, {}, y.view());
    linear().backward_data(exec(), y.view(), ref, Write::overwrite, x.view());
    linear().backward_weight(exec(), y.view(), x.view(), Write::overwrite, dw.view(), {});
  };
  step(1);
  const auto before = memory_->stats();
  step(2);
  EXPECT_EQ(memory_->stats().total_live, before.total_live);
  EXPECT_EQ(memory_->stats().total_peak, before.total_peak);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType dtype : {DType::f32, DType::bf16}) {
    all.push_back({cpu::Isa::portable, dtype, 2});
    if (cpu::best_isa() != cpu::Isa::portable) all.push_back({cpu::Isa::v3, dtype, 1});
    if (cpu::best_isa() == cpu::Isa::v4)
      for (int threads : {1, 3}) all.push_back({cpu::Isa::v4, dtype, threads});
  }
  // oneDNN computes in bf16 wherever there is AVX-512.
  if (cpu::best_isa() == cpu::Isa::v4 && !cpu::dnnl_library().empty())
    all.push_back({cpu::Isa::v4, DType::bf16, 2, cpu::Bf16Products::dnnl});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cpu, Linear, testing::ValuesIn(cases()), [](const auto& one) {
  std::string isa(one.param.isa == cpu::Isa::portable ? "portable" : one.param.isa == cpu::Isa::v3 ? "v3" : "v4");
  return isa + "_" + std::string(name_of(one.param.dtype)) + "_" + std::to_string(one.param.threads) +
         (one.param.bf16 == cpu::Bf16Products::dnnl ? "_dnnl" : "");
});

}  // namespace
}  // namespace weft
