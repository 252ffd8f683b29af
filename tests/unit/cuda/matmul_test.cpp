// The matrix products by cuBLASLt, and the linear kernels over them, on a stand-in for the library in host memory.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "core/base/philox.hpp"
#include "core/cuda/cublaslt.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/state.hpp"
#include "tests/unit/cuda/fake_cublaslt.hpp"
#include "tests/unit/op_cases/check.hpp"

namespace weft::test {
namespace {

using cuda::CublasLtOptions;
using cuda::CublasLtState;
using cuda::MatmulArgs;

CublasLtOptions fake_options() {
  CublasLtOptions options;
  options.names = {WEFT_FAKE_CUBLASLT};
  options.folders = {};
  options.fuse_sums = true;
  return options;
}

std::unique_ptr<BackendState> fake_state() {
  return std::make_unique<cuda::CudaState>(fake_options(), [] { return std::unique_ptr<cuda::FusedAttention>(); });
}

FakeCublasLt& fake() {
  static const cuda::Library library("the stand-in", fake_options().names, {});
  return *library.function<FakeCublasLt*()>("fake_cublaslt")();
}

class Matmul : public testing::Test {
 protected:
  void SetUp() override { fake() = {}; }
  void TearDown() override {
    state_.reset();
    EXPECT_EQ(fake().live, 0) << "handles or descriptors were left behind";
  }
  CublasLtState& state() {
    if (!state_) state_ = std::make_unique<CublasLtState>(fake_options());
    return *state_;
  }
  std::unique_ptr<CublasLtState> state_;
};

/// A matrix with memory, `shift` elements behind an address aligned to 256 bytes, of random values.
class Buffer {
 public:
  Buffer(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, std::int64_t shift = 0)
      : memory_(static_cast<std::size_t>(rows * stride + shift) * 4 + 256) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    char* data = memory_.data() + (256 - address % 256) % 256 + static_cast<std::size_t>(shift) * size_of(dtype);
    matrix_ = {data, dtype, rows, cols, stride};
    static std::uint64_t drawn = 0;
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t col = 0; col < cols; ++col) set(row, col, normal(philox_key(5), drawn++));
  }
  const Matrix& matrix() const { return matrix_; }
  double get(std::int64_t row, std::int64_t col) const {
    const std::int64_t i = row * matrix_.stride + col;
    return matrix_.dtype == DType::bf16 ? static_cast<double>(static_cast<float>(static_cast<bf16*>(matrix_.data)[i]))
                                        : static_cast<double>(static_cast<float*>(matrix_.data)[i]);
  }

 private:
  void set(std::int64_t row, std::int64_t col, double value) {
    const std::int64_t i = row * matrix_.stride + col;
    if (matrix_.dtype == DType::bf16)
      static_cast<bf16*>(matrix_.data)[i] = bf16(static_cast<float>(value));
    else
      static_cast<float*>(matrix_.data)[i] = static_cast<float>(value);
  }
  std::vector<char> memory_;
  Matrix matrix_;
};

std::vector<char>& workspace() {
  static std::vector<char> memory(cuda::cublaslt_workspace);
  return memory;
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

struct Sizes {
  std::int64_t m, n, k;
};

struct Problem {
  DType dtype = DType::f32, out_dtype = DType::f32;
  bool transpose_a = false, transpose_b = false;
  bool bias = false, gelu = false, pre = false, sums = false;
  enum Added { nothing, itself, another } added = nothing;
};

/// out = a·b, nothing fused.
MatmulArgs product_of(const Buffer& a, const Buffer& b, const Buffer& out) {
  MatmulArgs args;
  args.a = a.matrix();
  args.b = b.matrix();
  args.out = out.matrix();
  args.workspace = workspace().data();
  return args;
}

// Runs a product and holds every element that it wrote against the definition.
void expect_right_product(CublasLtState& state, const Problem& p, const Sizes& size) {
  const auto [m, n, k] = size;
  const Buffer a(p.dtype, p.transpose_a ? k : m, p.transpose_a ? m : k, (p.transpose_a ? m : k) + 8);
  const Buffer b(p.dtype, p.transpose_b ? n : k, p.transpose_b ? k : n, (p.transpose_b ? k : n) + 16);
  const Buffer out(p.out_dtype, m, n, n + 8), other(p.out_dtype, m, n, n + 24), pre(p.out_dtype, m, n, n);
  const Buffer bias(p.out_dtype, 1, n, n), sums(DType::f32, 1, m, m);
  MatmulArgs args = product_of(a, b, out);
  args.transpose_a = p.transpose_a;
  args.transpose_b = p.transpose_b;
  if (p.added != Problem::nothing) args.added = p.added == Problem::itself ? out.matrix() : other.matrix();
  if (p.bias) args.bias = bias.matrix().data;
  args.gelu = p.gelu;
  if (p.pre) args.pre = pre.matrix();
  if (p.sums) args.sums = static_cast<float*>(sums.matrix().data);
  std::vector<double> before(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m * n; ++i)
    before[static_cast<std::size_t>(i)] = (p.added == Problem::itself ? out : other).get(i / n, i % n);
  ASSERT_TRUE(state.fuses(args));
  state.run(args, nullptr);

  const double tolerance = p.out_dtype == DType::bf16 ? 1e-2 : 1e-5;
  for (std::int64_t row = 0; row < m; ++row) {
    double sum = 0;
    for (std::int64_t i = 0; i < k; ++i) sum += p.transpose_a ? a.get(i, row) : a.get(row, i);
    if (p.sums) {
      EXPECT_NEAR(sums.get(0, row), sum, 1e-4);
    }
    for (std::int64_t col = 0; col < n; ++col) {
      double value = p.bias ? bias.get(0, col) : 0;
      for (std::int64_t i = 0; i < k; ++i)
        value += (p.transpose_a ? a.get(i, row) : a.get(row, i)) * (p.transpose_b ? b.get(col, i) : b.get(i, col));
      if (p.pre) {
        EXPECT_NEAR(pre.get(row, col), value, tolerance * (1 + std::abs(value)));
      }
      if (p.gelu) value = gelu(value);
      if (p.added != Problem::nothing) value += before[static_cast<std::size_t>(row * n + col)];
      ASSERT_NEAR(out.get(row, col), value, tolerance * (1 + std::abs(value))) << row << ", " << col;
    }
  }
}

TEST_F(Matmul, IsRightForAllTransposesAndTypes) {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const auto& [dtype, out] :
           {std::pair(DType::f32, DType::f32), std::pair(DType::bf16, DType::f32), std::pair(DType::bf16, DType::bf16)})
        for (const Sizes& size : {Sizes{5, 7, 3}, Sizes{1, 9, 4}, Sizes{6, 1, 1}})
          expect_right_product(
              state(), {.dtype = dtype, .out_dtype = out, .transpose_a = transpose_a, .transpose_b = transpose_b},
              size);
}

TEST_F(Matmul, AddsToWhatItselfOrAnotherHolds) {
  for (const auto added : {Problem::itself, Problem::another})
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool bias : {false, true})
        expect_right_product(state(), {.dtype = dtype, .out_dtype = dtype, .bias = bias, .added = added}, {4, 16, 5});
}

TEST_F(Matmul, TakesBiasGeluAndSumsAlong) {
  for (const bool bias : {false, true})
    for (const bool pre : {false, true})
      expect_right_product(
          state(),
          {.dtype = DType::bf16, .out_dtype = DType::bf16, .transpose_b = true, .bias = bias, .gelu = true, .pre = pre},
          {5, 24, 7});
  expect_right_product(state(), {.transpose_b = true, .bias = true}, {5, 12, 7});
  for (const DType dtype : {DType::f32, DType::bf16})
    expect_right_product(state(), {.dtype = dtype, .transpose_a = true, .sums = true}, {8, 16, 9});
}

TEST_F(Matmul, APlanIsMadeOnceAProductAndAnotherForOtherAlignment) {
  const Buffer a(DType::bf16, 8, 16, 16), b(DType::bf16, 16, 8, 8), out(DType::bf16, 8, 8, 8);
  const Buffer shifted(DType::bf16, 8, 16, 16, 1);
  MatmulArgs args = product_of(a, b, out);
  for (int i = 0; i < 3; ++i) state().run(args, nullptr);
  EXPECT_EQ(fake().heuristics, 1);
  EXPECT_EQ(fake().products, 3);
  args.a = shifted.matrix();
  for (int i = 0; i < 2; ++i) state().run(args, nullptr);
  EXPECT_EQ(fake().heuristics, 2);
}

TEST_F(Matmul, TakesTheFirstProposalUnlessTunedOrUnable) {
  const Buffer a(DType::f32, 4, 8, 8), b(DType::f32, 8, 4, 4), out(DType::f32, 4, 4, 4), other(DType::f32, 4, 4, 4);
  MatmulArgs args = product_of(a, b, out);
  state().run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 0);
  CublasLtOptions options = fake_options();
  options.table = {"", 130000, {{cuda::key_of(args), {2, 1, 2}}}};
  CublasLtState(options).run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 2);
  args.added = other.matrix();  // the first proposal cannot
  state().run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 1);
}

TEST_F(Matmul, ATableOfAnotherLibraryIsNotUsedAndSaysSo) {
  const Buffer a(DType::f32, 4, 8, 8), b(DType::f32, 8, 4, 4), out(DType::f32, 4, 4, 4);
  MatmulArgs args = product_of(a, b, out);
  CublasLtOptions options = fake_options();
  options.table = {"", 120800, {{cuda::key_of(args), {2, 1, 2}}}};
  CublasLtState other(options);
  other.run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 0);
  EXPECT_NE(other.why_no_table().find("measured with cuBLASLt 12.8.0, and this is 13.0.0"), std::string::npos)
      << other.why_no_table();
  EXPECT_EQ(other.rule(), "cuBLASLt's first proposals");
  options.table.library = 130000;
  EXPECT_EQ(CublasLtState(options).rule(), "a table of 1 measured algorithms");
}

// A listed algorithm may be taken where its key is equal: everything that a proposal depends on must make another key.
TEST_F(Matmul, ProductsShareAKeyOnlyIfTheyDifferInAddressesAlone) {
  struct Case {
    Problem problem;
    std::int64_t gap = 0, shift = 0;  // of each operand in turn
    int operand = 0;
  };
  std::vector<Case> cases;
  const auto bools = {false, true};
  for (const bool transpose_a : bools)
    for (const bool transpose_b : bools)
      for (const auto& [dtype, out] :
           {std::pair(DType::f32, DType::f32), std::pair(DType::bf16, DType::f32), std::pair(DType::bf16, DType::bf16)})
        for (const bool bias : bools) {
          Problem p{
              .dtype = dtype, .out_dtype = out, .transpose_a = transpose_a, .transpose_b = transpose_b, .bias = bias};
          for (const auto added : {Problem::nothing, Problem::itself, Problem::another}) {
            p.added = added;
            cases.push_back({p});
          }
          p.added = Problem::nothing;
          p.gelu = true;
          cases.push_back({p});
          p.pre = true;
          cases.push_back({p});
          if (!bias && out == DType::f32) {
            p.gelu = p.pre = false;
            p.sums = true;
            cases.push_back({p});
          }
        }
  const Problem every{.dtype = DType::bf16, .out_dtype = DType::bf16, .bias = true, .gelu = true, .pre = true};
  for (int operand = 0; operand < 4; ++operand) {
    cases.push_back({every, 8, 0, operand});
    for (const std::int64_t shift : {1, 2, 4, 8}) cases.push_back({every, 0, shift, operand});
  }
  const auto key = [](const Case& one) {
    const Problem& p = one.problem;
    const auto buffer = [&, next = 0](DType dtype, std::int64_t rows, std::int64_t cols) mutable {
      const bool changed = next++ == one.operand;
      return Buffer(dtype, rows, cols, cols + (changed ? one.gap : 0), changed ? one.shift : 0);
    };
    auto make = buffer;
    const Buffer a = make(p.dtype, 128, 128), b = make(p.dtype, 128, 128), out = make(p.out_dtype, 128, 128),
                 pre = make(p.out_dtype, 128, 128), other(p.out_dtype, 128, 128, 128), bias(p.out_dtype, 1, 128, 128);
    MatmulArgs args = product_of(a, b, out);
    args.transpose_a = p.transpose_a;
    args.transpose_b = p.transpose_b;
    if (p.added != Problem::nothing) args.added = p.added == Problem::itself ? out.matrix() : other.matrix();
    if (p.bias) args.bias = bias.matrix().data;
    args.gelu = p.gelu;
    if (p.pre) args.pre = pre.matrix();
    if (p.sums) args.sums = static_cast<float*>(bias.matrix().data);
    return cuda::key_of(args);
  };
  std::set<ProductKey> keys;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_TRUE(keys.insert(key(cases[i])).second) << "case " << i << " has the key of another";
    EXPECT_EQ(key(cases[i]), key(cases[i])) << "case " << i << " in other memory";
  }
}

TEST_F(Matmul, AProposalThatTheLibraryThenRefusesIsNotMeasured) {
  const Buffer a(DType::f32, 4, 8, 8), b(DType::f32, 8, 4, 4), out(DType::f32, 4, 4, 4);
  MatmulArgs args = product_of(a, b, out);
  CublasLtOptions options = fake_options();
  options.time = [](const std::function<void()>& run, void*) {
    run();
    return 1e-6 * (3 - fake().last_algorithm);
  };
  fake().refused_algorithm = 2;
  CublasLtState measuring(options);
  measuring.run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 1);
  EXPECT_EQ(measuring.measured().choices.at(cuda::key_of(args)).algorithm, 1);
  fake().refused_algorithm = 0;
  EXPECT_THROW(CublasLtState(options).run(args, nullptr), Error);
}

TEST_F(Matmul, TheFastestProposalIsMeasuredOnceAProduct) {
  const Buffer a(DType::f32, 4, 8, 8), b(DType::f32, 8, 4, 4), out(DType::f32, 4, 4, 4);
  MatmulArgs args = product_of(a, b, out);
  CublasLtOptions options = fake_options();
  int timed = 0;
  options.time = [&](const std::function<void()>& run, void*) {
    run();
    ++timed;
    return fake().last_algorithm == 1 ? 2e-6 : 3e-6;
  };
  CublasLtState measuring(options);
  for (int i = 0; i < 3; ++i) measuring.run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 1);
  EXPECT_GE(timed, 3);
  const int once = timed;
  measuring.run(args, nullptr);
  EXPECT_EQ(timed, once);
  const ProductTable& table = measuring.measured();
  EXPECT_EQ(table.library, 130000u);
  ASSERT_EQ(table.choices.size(), 1u);
  EXPECT_EQ(table.choices.at(cuda::key_of(args)), (ProductChoice{1, 2, 3}));

  options.time = nullptr;
  options.table = table;
  CublasLtState(options).run(args, nullptr);
  EXPECT_EQ(fake().last_algorithm, 1);
}

TEST_F(Matmul, WhatTheLibraryRefusesIsNotFused) {
  const Buffer a(DType::f32, 4, 8, 8), b(DType::f32, 8, 4, 4), out(DType::f32, 4, 4, 4), bias(DType::f32, 1, 4, 4);
  MatmulArgs args = product_of(a, b, out);
  args.bias = bias.matrix().data;
  fake().refuse_epilogues = true;
  EXPECT_FALSE(state().fuses(args));
  args.bias = nullptr;
  EXPECT_TRUE(state().fuses(args));
  state().run(args, nullptr);
  fake().refuse_all = true;
  args.added = out.matrix();
  try {
    state().run(args, nullptr);
    FAIL() << "an unsupported product went through";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("[4, 8] and [8, 4]"), std::string::npos) << error.what();
  }
}

std::string error_of_state(const CublasLtOptions& options) {
  try {
    const CublasLtState made(options);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST_F(Matmul, AMissingLibraryIsAnErrorThatSaysWhatWasTried) {
  CublasLtOptions options;
  options.names = {"libnone.so.13", "libnone.so.12"};
  options.folders = {"/nowhere/lib"};
  const std::string error = error_of_state(options);
  for (const char* part : {"cuBLASLt", "libnone.so.13", "libnone.so.12", "/nowhere/lib/libnone.so.13: not there"})
    EXPECT_NE(error.find(part), std::string::npos) << part << " in " << error;
}

TEST_F(Matmul, ALibraryWithoutAFunctionIsAnErrorThatNamesIt) {
  CublasLtOptions options;
  options.names = {"libm.so.6"};
  EXPECT_NE(error_of_state(options).find("libm.so.6 has no cublasLtCreate"), std::string::npos);
}

TEST_F(Matmul, AnUnusableDeviceIsAnErrorThatNamesTheCall) {
  fake().no_device = true;
  EXPECT_NE(error_of_state(fake_options()).find("cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED"), std::string::npos);
}

TEST_F(Matmul, ATargetBeyondTheVocabularyMakesItsLossNoNumber) {
  std::vector<float> h(2 * 4, 0.5f), w(3 * 4, 0.25f), weights(2, 1.0f), loss(2), dh(h.size()), dw(w.size());
  std::vector<std::int32_t> targets = {3, 2};
  KernelTable kernels;
  cuda::bind_linear(kernels);
  HostMachine machine(kernels, fake_state(), 1);
  const WeightRef weight{View(w.data(), {3, 4}, DType::f32)};
  kernels.linear.cross_entropy(machine.exec(), View(h.data(), {2, 4}, DType::f32), weight,
                               View(targets.data(), {2}, DType::i32), View(weights.data(), {2}, DType::f32), 1.0f,
                               Write::overwrite, MutView(loss.data(), {2}, DType::f32),
                               MutView(dh.data(), {2, 4}, DType::f32), MutView(dw.data(), {3, 4}, DType::f32));
  EXPECT_TRUE(std::isnan(loss[0]));
  EXPECT_NEAR(loss[1], std::log(3.0), 1e-6);
}

struct Point {
  OpCase op;
  DType activation;
  bool refuse;
};

void PrintTo(const Point& point, std::ostream* out) {
  *out << point.op.name << " " << name_of(point.activation) << (point.refuse ? " unfused" : "");
}

std::string name_of_point(const testing::TestParamInfo<Point>& info) {
  const Point& point = info.param;
  return test_name(fmt::format("{}_{}{}", point.op.name, name_of(point.activation), point.refuse ? "_unfused" : ""));
}

std::vector<Point> points() {
  std::vector<OpCase> ops = linear_cases();
  for (const OpCase& op : cross_entropy_cases()) ops.push_back(op);
  std::vector<Point> all;
  for (const OpCase& op : ops)
    for (const DType activation : {DType::f32, DType::bf16})
      for (const bool refuse : {false, true}) all.push_back({op, activation, refuse});
  return all;
}

Results run_on_fake(const Point& point) {
  fake() = {};
  fake().refuse_epilogues = point.refuse;
  KernelTable kernels;
  cuda::bind_linear(kernels);
  cuda::bind_elementwise(kernels);
  kernels.elementwise.gelu_backward.bind([](ExecContext&, View x, View dy, MutView dx) {
    dispatch_float(x.dtype, [&]<class T>() {
      for (std::int64_t i = 0; i < x.numel(); ++i) {
        const double v = static_cast<double>(static_cast<float>(x.as<T>()[i])), h = 1e-6;
        const double slope = (gelu(v + h) - gelu(v - h)) / (2 * h);
        dx.as<T>()[i] = T(static_cast<float>(static_cast<double>(static_cast<float>(dy.as<T>()[i])) * slope));
      }
    });
  });
  HostMachine machine(kernels, fake_state(), 1);
  return execute(machine, point.op, point.activation);
}

class LinearOnCublasLt : public testing::TestWithParam<Point> {};

TEST_P(LinearOnCublasLt, AgreesWithTheOracleAndItsFiniteDifferences) {
  const Results found = run_on_fake(GetParam());
  expect_right(GetParam().op, GetParam().activation, found);
  EXPECT_TRUE(found.bytes == run_on_fake(GetParam()).bytes) << "a second run gave other bits";
  EXPECT_EQ(fake().live, 0);
}

INSTANTIATE_TEST_SUITE_P(Table, LinearOnCublasLt, testing::ValuesIn(points()), name_of_point);

}  // namespace
}  // namespace weft::test
