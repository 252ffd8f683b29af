// What the case table does not ask of the vector kernels: empty inputs, refusals, and values that are not finite.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft {
namespace {

class VectorKernels : public testing::TestWithParam<cpu::Isa> {
 protected:
  VectorKernels() : memory_(make_caching_allocator(make_host_memory())), exec_(kernels_, *memory_, 2) {
    cpu::bind(kernels_, kernel_abi_hash(), GetParam());
  }

  KernelTable kernels_;
  std::unique_ptr<Allocator> memory_;
  ExecContext exec_;
};

MutView f32(std::vector<float>& values, Shape shape) { return {values.data(), shape, DType::f32}; }

constexpr float infinity = std::numeric_limits<float>::infinity();

TEST_P(VectorKernels, NoRowsAreNoWork) {
  std::vector<float> gain(8, 1.0f), dgain(8, 3.0f), none;
  const Shape empty{0, 8};
  kernels_.norm.forward(exec_, NormKind::layer, f32(none, empty), {}, {}, f32(gain, {8}), {}, 1e-5f, {},
                        f32(none, empty), {}, {});
  kernels_.norm.backward(exec_, NormKind::rms, f32(none, empty), f32(none, empty), f32(gain, {8}), {}, {}, {}, {},
                         Write::add, f32(none, empty), {}, f32(dgain, {8}), {});
  EXPECT_EQ(dgain, std::vector<float>(8, 3.0f));
  kernels_.norm.backward(exec_, NormKind::rms, f32(none, empty), f32(none, empty), f32(gain, {8}), {}, {}, {}, {},
                         Write::overwrite, f32(none, empty), {}, f32(dgain, {8}), {});
  EXPECT_EQ(dgain, std::vector<float>(8, 0.0f));
  kernels_.dropout.apply(exec_, f32(none, empty), {}, f32(none, empty));
  kernels_.elementwise.gelu(exec_, f32(none, empty), f32(none, empty));
  kernels_.elementwise.copy(exec_, f32(none, empty), f32(none, empty));
  kernels_.elementwise.fill(exec_, 1.0f, f32(none, empty));
  const Shape heads{1, 0, 2, 8};
  kernels_.attention.forward(exec_, f32(none, heads), f32(none, heads), f32(none, heads), {}, f32(none, heads), {});
  kernels_.attention.backward(exec_, f32(none, heads), f32(none, heads), f32(none, heads), f32(none, heads), {},
                              f32(none, heads), {}, f32(none, heads), f32(none, heads), f32(none, heads));
  double sum = 5;
  kernels_.elementwise.dot(exec_, f32(none, {0}), {}, Write::add, MutView(&sum, {1}, DType::f64));
  EXPECT_EQ(sum, 5);
  kernels_.elementwise.dot(exec_, f32(none, {0}), {}, Write::overwrite, MutView(&sum, {1}, DType::f64));
  EXPECT_EQ(sum, 0);
}

TEST_P(VectorKernels, AttentionWithoutKeysGivesZerosAndNoQueryGradient) {
  std::vector<float> q(16, 1.0f), out(16, 7.0f), lse(2, 7.0f), dq(16, 7.0f), none;
  const Shape queries{1, 2, 1, 8}, keys{1, 0, 1, 8};
  AttentionSpec spec;
  spec.causal = false;
  kernels_.attention.forward(exec_, f32(q, queries), f32(none, keys), f32(none, keys), spec, f32(out, queries),
                             f32(lse, {1, 1, 2}));
  EXPECT_EQ(out, std::vector<float>(16, 0.0f));
  EXPECT_EQ(lse, std::vector<float>(2, -infinity));
  kernels_.attention.backward(exec_, f32(q, queries), f32(none, keys), f32(none, keys), f32(out, queries),
                              f32(lse, {1, 1, 2}), f32(q, queries), spec, f32(dq, queries), f32(none, keys),
                              f32(none, keys));
  EXPECT_EQ(dq, std::vector<float>(16, 0.0f));
}

// A loss that is not finite must reach the optimizer's check, so no kernel may lose a NaN on the way.
TEST_P(VectorKernels, NotANumberPassesThrough) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x(40, 0.5f), y(40);
  x[21] = nan;
  kernels_.elementwise.gelu(exec_, f32(x, {40}), f32(y, {40}));
  EXPECT_TRUE(std::isnan(y[21]));
  EXPECT_FALSE(std::isnan(y[20]));
  std::vector<float> gain(40, 1.0f);
  kernels_.norm.forward(exec_, NormKind::layer, f32(x, {1, 40}), {}, {}, f32(gain, {40}), {}, 1e-5f, {},
                        f32(y, {1, 40}), {}, {});
  EXPECT_TRUE(std::isnan(y[0]));
  std::vector<bf16> half(40);
  const MutView narrow(half.data(), {40}, DType::bf16);
  kernels_.elementwise.copy(exec_, f32(x, {40}), narrow);
  EXPECT_TRUE(std::isnan(static_cast<float>(half[21])));
  for (const int poisoned : {0, 1, 2}) {  // of q, k, v
    std::vector<float> parts[3] = {std::vector<float>(24, 0.5f), std::vector<float>(24, 0.5f),
                                   std::vector<float>(24, 0.5f)};
    parts[poisoned][17] = nan;  // of token 2 of 3
    std::vector<float> out(24);
    const Shape shape{1, 3, 1, 8};
    kernels_.attention.forward(exec_, f32(parts[0], shape), f32(parts[1], shape), f32(parts[2], shape), {},
                               f32(out, shape), {});
    EXPECT_TRUE(std::isnan(out[17])) << poisoned;
    EXPECT_FALSE(std::isnan(out[15])) << poisoned;
  }
}

TEST_P(VectorKernels, ConversionRoundsAsTheScalarTypeDoes) {
  std::vector<float> x;
  for (const float value :
       {0.0f, -0.0f, 1.0f, 1.00390625f, 1.01171875f, 3.4e38f, -3.4e38f, infinity, -infinity, 1e-40f})
    for (int step = -2; step <= 2; ++step) {
      float near = value;
      for (int i = 0; i < std::abs(step); ++i) near = std::nextafter(near, step < 0 ? -infinity : infinity);
      x.push_back(near);
    }
  std::vector<bf16> y(x.size());
  const Shape shape{static_cast<std::int64_t>(x.size())};
  kernels_.elementwise.copy(exec_, f32(x, shape), MutView(y.data(), shape, DType::bf16));
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i].bits, bf16(x[i]).bits) << x[i];
  std::vector<float> back(x.size());
  kernels_.elementwise.copy(exec_, View(y.data(), shape, DType::bf16), f32(back, shape));
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back[i], static_cast<float>(y[i])) << x[i];
}

TEST_P(VectorKernels, RefusesWhatDoesNotFit) {
  std::vector<float> x(24), y(24);
  EXPECT_THROW(kernels_.elementwise.add(exec_, f32(x, {24}), f32(x, {23}), f32(y, {24})), Error);
  EXPECT_THROW(kernels_.attention.forward(exec_, f32(x, {1, 1, 3, 8}), f32(x, {1, 1, 2, 8}), f32(x, {1, 1, 2, 8}), {},
                                          f32(y, {1, 1, 3, 8}), {}),
               Error);  // 3 query heads over 2
  const std::vector<std::int32_t> tokens = {0, 3};
  std::vector<float> table(24), dtable(24);
  TokenMap map;
  map.seq_local = map.seq_global = map.first_length = 2;
  EXPECT_THROW(kernels_.embedding.forward(exec_, View(tokens.data(), {2}, DType::i32), f32(table, {3, 8}), {}, {}, map,
                                          {}, f32(y, {2, 8})),
               Error);  // token 3 of 3
  EXPECT_THROW(kernels_.embedding.forward(exec_, View(tokens.data(), {2}, DType::i32), f32(table, {4, 6}), {},
                                          f32(table, {1, 6}), map, {}, f32(y, {2, 6})),
               Error);  // position 1 of 1
}

std::vector<cpu::Isa> available() {
  std::vector<cpu::Isa> all;
  for (const cpu::Isa isa : {cpu::Isa::portable, cpu::Isa::v3, cpu::Isa::v4})
    if (isa <= cpu::best_isa()) all.push_back(isa);
  return all;
}

std::string name_of_isa(const testing::TestParamInfo<cpu::Isa>& tested) {
  return tested.param == cpu::Isa::portable ? "portable" : tested.param == cpu::Isa::v3 ? "v3" : "v4";
}

INSTANTIATE_TEST_SUITE_P(AllIsas, VectorKernels, testing::ValuesIn(available()), name_of_isa);

TEST(Backend, RefusesATableOfAnotherBuild) {
  KernelTable table;
  EXPECT_THROW(cpu::bind(table, kernel_abi_hash() + 1, cpu::Isa::portable), Error);
  EXPECT_FALSE(table.elementwise.add.bound());
}

}  // namespace
}  // namespace weft
