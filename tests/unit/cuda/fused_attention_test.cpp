// Attention by cuDNN, on a stand-in for the library in host memory, held against Weft's own kernels on fibers.
#include <cudnn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/cuda/cudnn/attention.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/state.hpp"
#include "tests/unit/cuda/attention_memory.hpp"
#include "tests/unit/cuda/fake_cudnn.hpp"
#include "tests/unit/op_cases/check.hpp"
#include "tests/unit/op_cases/reference.hpp"

namespace weft::test {
namespace {

using cuda::CudaState;
using cuda::CudnnAttention;
using cuda::CudnnOptions;

CudnnOptions fake_options() {
  CudnnOptions options;
  options.names = {WEFT_FAKE_CUDNN};
  options.folders = {};
  options.capability = 90;
  return options;
}

FakeCudnn& fake() {
  static const cuda::Library library("the stand-in", fake_options().names, {});
  return *library.function<FakeCudnn*()>("fake_cudnn")();
}

std::unique_ptr<CudaState> make_cuda_state(const CudnnOptions& options) {
  cuda::CublasLtOptions products;
  products.names = {WEFT_FAKE_CUBLASLT};
  products.folders = {};
  return std::make_unique<CudaState>(products, [&] { return std::make_unique<CudnnAttention>(options); });
}

/// Attention's kernels with the state that the options give.
class Attention {
 public:
  explicit Attention(const CudnnOptions& options) {
    cuda::bind_attention(kernels_);
    machine_ = std::make_unique<HostMachine>(kernels_, make_cuda_state(options), 1);
  }
  ExecContext& exec() { return machine_->exec(); }
  const AttentionKernels& kernels() const { return kernels_.attention; }

 private:
  KernelTable kernels_;
  std::unique_ptr<HostMachine> machine_;
};

struct Case {
  std::int64_t batch = 2, q_len = 70, k_len = 70, heads = 4, kv_heads = 4, head_dim = 16;
  bool causal = true;
};

struct Found {
  std::vector<double> out, lse, dqueries, dkeys;  // the gradients of the fused projections
};

/// Forward and backward of a case on slices of a projection of queries and one of keys and values.
struct Problem {
  explicit Problem(const Case& given, std::uint64_t seed = 1) : c(given) {
    queries = memory.random({c.batch, c.q_len, c.heads * c.head_dim + 8}, DType::bf16, seed);
    keys = memory.random({c.batch, c.k_len, 2 * c.kv_heads * c.head_dim}, DType::bf16, seed + 1);
    dout = memory.random({c.batch, c.q_len, c.heads, c.head_dim}, DType::bf16, seed + 2);
    out = memory.zeros(dout.shape, DType::bf16);
    lse = memory.zeros({c.batch, c.heads, c.q_len}, DType::f32);
    dqueries = memory.zeros(queries.shape, DType::bf16);
    dkeys = memory.zeros(keys.shape, DType::bf16);
    spec.causal = c.causal;
    spec.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
  }
  void forward(Attention& on, bool with_lse = true) {
    on.kernels().forward(on.exec(), heads_of(queries, 0, c.heads, c.head_dim),
                         heads_of(keys, 0, c.kv_heads, c.head_dim), heads_of(keys, c.kv_heads, c.kv_heads, c.head_dim),
                         spec, out, with_lse ? lse : MutView{});
  }
  void backward(Attention& on) {
    on.kernels().backward(on.exec(), heads_of(queries, 0, c.heads, c.head_dim),
                          heads_of(keys, 0, c.kv_heads, c.head_dim), heads_of(keys, c.kv_heads, c.kv_heads, c.head_dim),
                          out, lse, dout, spec, heads_of(dqueries, 0, c.heads, c.head_dim),
                          heads_of(dkeys, 0, c.kv_heads, c.head_dim),
                          heads_of(dkeys, c.kv_heads, c.kv_heads, c.head_dim));
  }
  Found found() const { return {values_of(out), values_of(lse), values_of(dqueries), values_of(dkeys)}; }

  Case c;
  Memory memory;
  View queries, keys, dout;
  MutView out, lse, dqueries, dkeys;
  AttentionSpec spec;
};

void expect_same(const Found& found, const Found& right, double tolerance = 1e-2) {
  EXPECT_LT(relative_error(found.out, right.out), tolerance) << "out";
  EXPECT_LT(relative_error(found.lse, right.lse), 1e-5) << "lse";
  EXPECT_LT(relative_error(found.dqueries, right.dqueries), tolerance) << "dq";
  EXPECT_LT(relative_error(found.dkeys, right.dkeys), tolerance) << "dk, dv";
}

class FusedAttention : public testing::Test {
 protected:
  void SetUp() override { fake() = {}; }
  void TearDown() override {
    fused_.reset();
    EXPECT_EQ(fake().live, 0) << "handles or descriptors were left behind";
  }
  Attention& fused(const CudnnOptions& options = fake_options()) {
    if (!fused_) fused_ = std::make_unique<Attention>(options);
    return *fused_;
  }
  /// Weft's own kernels alone.
  static Attention& own() {
    static Attention made([] {
      CudnnOptions options;
      options.names = {"libnone.so.9"};
      options.folders = {};
      return options;
    }());
    return made;
  }
  static Found own_result(const Case& c) {
    Problem problem(c);
    problem.forward(own());
    problem.backward(own());
    return problem.found();
  }
  std::unique_ptr<Attention> fused_;
};

TEST_F(FusedAttention, AgreesWithTheOwnKernels) {
  const Case cases[] = {
      {},
      {.causal = false},
      {.q_len = 64, .k_len = 64, .heads = 2, .kv_heads = 2, .head_dim = 8},
      {.batch = 1, .heads = 6, .kv_heads = 2},
      {.heads = 4, .kv_heads = 1, .causal = false},
      {.q_len = 65, .k_len = 90, .heads = 2, .kv_heads = 1, .causal = false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{}x{}x{}, {}/{} heads of {}, {}", c.batch, c.q_len, c.k_len, c.heads, c.kv_heads,
                             c.head_dim, c.causal ? "causal" : "all keys"));
    Problem problem(c);
    const int before = fake().executions;
    problem.forward(fused());
    problem.backward(fused());
    EXPECT_EQ(fake().executions, before + 2);
    expect_same(problem.found(), own_result(c));
  }
}

TEST_F(FusedAttention, WorksWithoutTheLogarithms) {
  Problem problem({});
  problem.forward(fused(), false);
  EXPECT_EQ(fake().executions, 1);
  EXPECT_LT(relative_error(values_of(problem.out), own_result({}).out), 1e-2);
  EXPECT_EQ(values_of(problem.lse), std::vector<double>(static_cast<std::size_t>(problem.lse.numel())));
}

TEST_F(FusedAttention, ItsForwardAndTheOwnBackwardGoTogetherAndTheOtherWayRound) {
  Problem one({}), other({});
  one.forward(fused());
  one.backward(own());
  other.forward(own());
  other.backward(fused());
  EXPECT_EQ(fake().executions, 2);
  expect_same(one.found(), own_result({}));
  expect_same(other.found(), own_result({}));
}

TEST_F(FusedAttention, LeavesPaddingOfAProjectionAlone) {
  Problem problem({});
  for (std::int64_t i = 0; i < problem.dqueries.numel(); ++i) problem.dqueries.as<bf16>()[i] = bf16(7.0f);
  problem.forward(fused());
  problem.backward(fused());
  const std::int64_t width = problem.dqueries.shape[2];
  for (std::int64_t row = 0; row < problem.c.batch * problem.c.q_len; ++row)
    for (std::int64_t col = width - 8; col < width; ++col)
      ASSERT_EQ(static_cast<float>(problem.dqueries.as<bf16>()[row * width + col]), 7.0f);
}

TEST_F(FusedAttention, PiecesGiveWhatTheWholeGives) {
  const Case c{.batch = 3, .q_len = 68, .k_len = 68, .heads = 6, .kv_heads = 3};
  const std::int64_t head = 2 * 2 * 128 * 128;  // two queries' heads a key-value head
  struct Cut {
    std::int64_t most;
    int executions, plans;
  };
  // Whole; two sequences and one; one by one; two heads of three and one; one head.
  for (const auto& [most, executions, plans] :
       {Cut{9 * head, 1, 1}, Cut{8 * head, 2, 2}, Cut{3 * head, 3, 1}, Cut{2 * head, 6, 2}, Cut{1, 9, 1}}) {
    fused_.reset();
    fake() = {};
    CudnnOptions options = fake_options();
    options.most_score_bytes = most;
    Problem problem(c);
    problem.forward(own());
    problem.backward(fused(options));
    EXPECT_EQ(fake().executions, executions) << most;
    EXPECT_EQ(fake().plans, plans) << most;
    EXPECT_LE(fake().largest_workspace, std::max(most, head) + 256);
    expect_same(problem.found(), own_result(c));
  }
}

TEST_F(FusedAttention, APlanIsMadeOncePerShapeAndTakesEachCallsPointers) {
  Problem first({}, 1), second({}, 11);
  first.forward(fused());
  first.backward(fused());
  const int live = fake().live;
  second.forward(fused());
  second.backward(fused());
  EXPECT_EQ(fake().plans, 2);
  EXPECT_EQ(fake().executions, 4);
  EXPECT_EQ(fake().live, live) << "a call left descriptors behind";
  Problem right({}, 11);
  right.forward(own());
  right.backward(own());
  expect_same(second.found(), right.found());
  Problem scaled({});
  scaled.spec.scale *= 2;
  scaled.forward(fused());
  EXPECT_EQ(fake().plans, 2) << "the scale is no part of a plan";
  Problem right_scaled({});
  right_scaled.spec.scale *= 2;
  right_scaled.forward(own());
  EXPECT_LT(relative_error(values_of(scaled.out), values_of(right_scaled.out)), 1e-2);
  Problem longer({.q_len = 71, .k_len = 71});
  longer.forward(fused());
  EXPECT_EQ(fake().plans, 3);
}

TEST_F(FusedAttention, RunsOnTheContextsStream) {
  Problem problem({});
  int stream = 0;
  fused().exec().stream.handle = &stream;
  problem.forward(fused());
  EXPECT_EQ(fake().last_stream, &stream);
  fused().exec().stream.handle = nullptr;
  problem.forward(fused());
  EXPECT_EQ(fake().last_stream, nullptr);
}

TEST_F(FusedAttention, TakesTheFirstEngineThatGivesTheSameBits) {
  Problem problem({});
  problem.forward(fused());
  EXPECT_EQ(fake().last_engine, 1) << "the first of the proposals adds in no fixed order";
  fake().failing_type = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR;
  fake().failing_status = CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED;
  fake().failing_times = 1;
  problem.backward(fused());
  EXPECT_EQ(fake().last_engine, 2) << "the second cannot be compiled";
  EXPECT_EQ(fake().executions, 2);
}

TEST_F(FusedAttention, OnBlackwellTheOrderedEngineIsAskedForBackward) {
  for (const auto& [version, knobs] : {std::pair(91900, 2), std::pair(92300, 6)}) {
    fused_.reset();
    fake() = {};
    fake().version = static_cast<std::size_t>(version);
    fake().stores_scores = false;
    CudnnOptions options = fake_options();
    options.capability = 100;
    Problem problem({});
    problem.forward(fused(options));
    EXPECT_EQ(fake().last_engine, 1);
    problem.backward(fused());
    EXPECT_EQ(fake().last_engine, 5);
    EXPECT_EQ(fake().last_knobs, knobs);
    EXPECT_EQ(fake().executions, 2);
    expect_same(problem.found(), own_result({}));
  }
}

TEST_F(FusedAttention, WhatHasNoUsableEngineIsLeftToTheOwnKernels) {
  struct Refusal {
    const char* name;
    void (*set)();
  };
  const Refusal refusals[] = {
      {"no fixed order", [] { fake().nondeterministic = 3; }},
      {"nothing proposed", [] { fake().proposals = 0; }},
      {"graph", [] { fake().failing_type = CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR; }},
      {"heuristic", [] { fake().failing_type = CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR; }},
      {"plan", [] { fake().failing_type = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR; }},
  };
  for (const auto& [name, set] : refusals) {
    SCOPED_TRACE(name);
    fused_.reset();
    fake() = {};
    fake().failing_status = CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN;
    set();
    Problem problem({});
    testing::internal::CaptureStderr();
    problem.forward(fused());
    problem.backward(fused());
    const int plans = fake().plans;
    problem.forward(fused());
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(fake().executions, 0);
    EXPECT_EQ(fake().plans, plans) << "it was tried again";
    EXPECT_NE(said.find("attention's forward of 2 sequences, 70 queries"), std::string::npos) << said;
    EXPECT_NE(said.find("attention's backward of 2"), std::string::npos) << said;
    expect_same(problem.found(), own_result({}), 1e-12);
  }
}

TEST_F(FusedAttention, ABackwardThatStoresNoScoresIsLeftToTheOwnKernel) {
  fake().stores_scores = false;
  Problem problem({});
  problem.forward(fused());
  problem.backward(fused());
  EXPECT_EQ(fake().executions, 1);
  expect_same(problem.found(), own_result({}));
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST_F(FusedAttention, OtherFailuresAreErrorsThatNameTheCall) {
  const std::tuple<int, int, const char*> failures[] = {
      {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_STATUS_BAD_PARAM, "cudnnBackendFinalize of a tensor"},
      {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_STATUS_BAD_PARAM, "cudnnBackendFinalize of an operation"},
      {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_STATUS_BAD_PARAM, "cudnnBackendFinalize of a reduction"},
      {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_STATUS_INTERNAL_ERROR, "cudnnBackendFinalize of a graph"},
      {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_STATUS_BAD_PARAM, "cudnnBackendFinalize of a call's arguments"},
  };
  Problem problem({});
  for (const auto& [type, status, text] : failures) {
    fused_.reset();
    fake() = {};
    fake().failing_type = type;
    fake().failing_status = status;
    const std::string error = error_of([&] { problem.forward(fused()); });
    EXPECT_NE(error.find(text), std::string::npos) << error;
    EXPECT_NE(error.find("as the test wants it"), std::string::npos) << error;
  }
  fused_.reset();
  fake() = {};
  fake().execute_status = CUDNN_STATUS_EXECUTION_FAILED;
  EXPECT_NE(error_of([&] { problem.forward(fused()); }).find("cudnnBackendExecute"), std::string::npos);
}

/// What the state says of attention, having computed it by the own kernels.
std::string reason_for_own(const CudnnOptions& options) {
  const auto state = make_cuda_state(options);
  EXPECT_EQ(state->attention(), nullptr);
  const CudaState::LibraryUse use = state->libraries().at(1);
  EXPECT_EQ(use.purpose, "attention");
  EXPECT_FALSE(use.used);
  Attention without(options);
  Problem problem({});
  problem.forward(without);
  EXPECT_EQ(fake().executions, 0);
  return use.details;
}

TEST_F(FusedAttention, WithoutAUsableLibraryTheOwnKernelsComputeAndTheStateSaysWhy) {
  CudnnOptions options = fake_options();
  options.names = {"libnone.so.9"};
  options.folders = {"/nowhere/lib"};
  std::string reason = reason_for_own(options);
  EXPECT_NE(reason.find("cuDNN cannot be opened"), std::string::npos) << reason;
  EXPECT_NE(reason.find("/nowhere/lib/libnone.so.9: not there"), std::string::npos) << reason;
  options.names = {"libm.so.6"};
  reason = reason_for_own(options);
  EXPECT_NE(reason.find("libm.so.6 has no cudnnGetVersion"), std::string::npos) << reason;
  fake().version = 90501;
  reason = reason_for_own(fake_options());
  EXPECT_NE(reason.find("is cuDNN 9.5.1, attention needs 9.10.2"), std::string::npos) << reason;
  fake() = {};
  fake().create_status = CUDNN_STATUS_NOT_INITIALIZED;
  reason = reason_for_own(fake_options());
  EXPECT_NE(reason.find("cudnnCreate"), std::string::npos) << reason;
}

TEST_F(FusedAttention, TheStateNamesTheLibrariesThatItUses) {
  const auto state = make_cuda_state(fake_options());
  const std::vector<CudaState::LibraryUse> uses = state->libraries();
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_TRUE(uses[0].used && uses[1].used);
  EXPECT_EQ(uses[0].details.rfind("cuBLASLt 13.0.0 (", 0), 0u) << uses[0].details;
  EXPECT_EQ(uses[1].details.rfind("cuDNN 9.19.0 (", 0), 0u) << uses[1].details;
}

}  // namespace
}  // namespace weft::test
