// Attention in bf16, which a vendor's fused kernels may compute, against Weft's own kernels, which compute all of f32.
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/philox.hpp"
#include "core/tensor/tensor.hpp"
#include "tests/gpu/device_under_test.hpp"
#include "tests/unit/op_cases/check.hpp"
#include "tests/unit/op_cases/reference.hpp"

namespace weft::test {
namespace {

struct Case {
  std::string name;
  std::int64_t batch, seq, heads, kv_heads, dim;
  bool causal = true;
};

void PrintTo(const Case& shape, std::ostream* out) { *out << shape.name; }

class GpuAttention : public testing::TestWithParam<Case> {
 protected:
  using Values = std::vector<double>;
  struct Results {
    Values out, dq, dk, dv;
    std::vector<std::vector<char>> bytes;
  };

  static void SetUpTestSuite() { device_ = open_gpu(); }
  static void TearDownTestSuite() { device_.reset(); }

  Tensor empty(Shape shape, DType dtype) {
    return Tensor::empty(device_->memory(), shape, dtype, MemoryUse::activation);
  }

  /// Normal values that bf16 holds exactly.
  Tensor input(const std::string& name, Shape shape, DType dtype) {
    std::vector<bf16> narrow(static_cast<std::size_t>(shape.numel()));
    const PhiloxKey key = philox_key(7, name);
    for (std::size_t i = 0; i < narrow.size(); ++i) narrow[i] = bf16(static_cast<float>(normal(key, i)));
    std::vector<float> wide(narrow.begin(), narrow.end());
    Tensor tensor = empty(shape, dtype);
    const void* data = dtype == DType::bf16 ? static_cast<const void*>(narrow.data()) : wide.data();
    exec().kernels().transfer.upload(exec(), View(data, shape, dtype), tensor.mut());
    return tensor;
  }

  Values values(const Tensor& tensor, Results& results) {
    std::vector<char>& bytes = results.bytes.emplace_back(tensor.view().bytes());
    exec().kernels().transfer.download(exec(), tensor.view(),
                                       MutView(bytes.data(), tensor.shape(), tensor.view().dtype));
    Values wide(static_cast<std::size_t>(tensor.numel()));
    for (std::size_t i = 0; i < wide.size(); ++i)
      wide[i] = tensor.view().dtype == DType::bf16
                    ? static_cast<double>(static_cast<float>(reinterpret_cast<const bf16*>(bytes.data())[i]))
                    : static_cast<double>(reinterpret_cast<const float*>(bytes.data())[i]);
    return wide;
  }

  Results run(const Case& shape, DType dtype) {
    const Shape q{shape.batch, shape.seq, shape.heads, shape.dim},
        kv{shape.batch, shape.seq, shape.kv_heads, shape.dim};
    const Tensor Q = input("q", q, dtype), K = input("k", kv, dtype), V = input("v", kv, dtype),
                 dout = input("dout", q, dtype);
    const Tensor out = empty(q, dtype), lse = empty({shape.batch, shape.heads, shape.seq}, DType::f32);
    const Tensor dq = empty(q, dtype), dk = empty(kv, dtype), dv = empty(kv, dtype);
    AttentionSpec spec;
    spec.causal = shape.causal;
    spec.scale = 1 / std::sqrt(static_cast<float>(shape.dim));
    spec.heads_global = shape.heads;
    spec.seq_global = shape.seq;
    const AttentionKernels& attention = exec().kernels().attention;
    attention.forward(exec(), Q.view(), K.view(), V.view(), spec, out.mut(), lse.mut());
    attention.backward(exec(), Q.view(), K.view(), V.view(), out.view(), lse.view(), dout.view(), spec, dq.mut(),
                       dk.mut(), dv.mut());
    Results results;
    results.out = values(out, results);
    results.dq = values(dq, results);
    results.dk = values(dk, results);
    results.dv = values(dv, results);
    return results;
  }

  ExecContext& exec() { return device_->exec(); }

  static std::unique_ptr<Device> device_;
};

std::unique_ptr<Device> GpuAttention::device_;

TEST_P(GpuAttention, InBf16IsThatOfF32AndTheSameTwice) {
  const Results right = run(GetParam(), DType::f32), found = run(GetParam(), DType::bf16);
  EXPECT_LE(relative_error(found.out, right.out), 1e-2);
  EXPECT_LE(relative_error(found.dq, right.dq), 1e-2);
  EXPECT_LE(relative_error(found.dk, right.dk), 1e-2);
  EXPECT_LE(relative_error(found.dv, right.dv), 1e-2);
  EXPECT_TRUE(found.bytes == run(GetParam(), DType::bf16).bytes) << "a second run gave other bits";
}

INSTANTIATE_TEST_SUITE_P(Small, GpuAttention,
                         testing::Values(Case{"tile", 1, 64, 2, 2, 16}, Case{"grouped", 2, 70, 4, 2, 8},
                                         Case{"full", 1, 65, 1, 1, 24, false}),
                         [](const auto& row) { return row.param.name; });
INSTANTIATE_TEST_SUITE_P(Large, GpuAttention,
                         testing::Values(Case{"gpt2", 4, 1024, 12, 12, 64}, Case{"llama", 2, 2048, 32, 8, 128},
                                         Case{"odd", 3, 1000, 5, 5, 40}, Case{"wide", 1, 512, 4, 4, 256},
                                         Case{"full", 2, 777, 8, 4, 96, false}),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace weft::test
