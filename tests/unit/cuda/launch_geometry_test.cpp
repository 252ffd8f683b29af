// How every kernel is launched, over a stand-in for the CUDA runtime that checks what a GPU would refuse and runs none: all
// shapes of the operation cases, and shapes of more elements than 32 bits count.
#include <algorithm>
#include <functional>

#include "core/kernels/optim.hpp"
#include "tests/unit/cuda/fake_cuda_fixture.hpp"
#include "tests/unit/op_cases/check.hpp"

namespace weft::test {
namespace {

class FakeGpu final : public Machine {
 public:
  ExecContext& exec() override { return device_->exec(); }
  void to_device(void* device, const void* host, std::size_t bytes) override {
    const Shape shape{static_cast<std::int64_t>(bytes)};
    exec().kernels().transfer.upload(exec(), View(host, shape, DType::u8),
                                     MutView(device, shape, DType::u8, exec().device()));
  }
  void to_host(void* host, const void* device, std::size_t bytes) override {
    const Shape shape{static_cast<std::int64_t>(bytes)};
    exec().kernels().transfer.download(exec(), View(device, shape, DType::u8, exec().device()),
                                       MutView(host, shape, DType::u8));
  }

 private:
  std::unique_ptr<Device> device_ = cuda_module().open({});
};

class LaunchGeometry : public CudaRuntime {};

TEST_F(LaunchGeometry, OfEveryOperationCaseIsTaken) {
  FakeGpu gpu;
  for (const OpCase& op : all_op_cases())
    for (const DType activation : {DType::f32, DType::bf16}) {
      if (activation == DType::bf16 && op.f32_only) continue;
      SCOPED_TRACE(op.name);
      EXPECT_EQ(error_of([&] { execute(gpu, op, activation); }), "");
    }
}

/// Views over an address that no kernel reads.
MutView at(Shape shape, DType dtype = DType::f32) {
  static std::int64_t place;
  return MutView(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(&place) & ~std::uintptr_t{255}), shape, dtype,
                 {DeviceKind::cuda, 0});
}

constexpr std::int64_t more = (std::int64_t{1} << 32) + 1;  ///< elements that 32 bits do not count
constexpr std::int64_t long_rows = std::int64_t{1} << 22, wide = 1025;
constexpr std::int64_t grid_limit = 0x7fffffff;

struct Call {
  const char* name;
  std::function<void(ExecContext&, DType)> run;
};
void PrintTo(const Call& call, std::ostream* out) { *out << call.name; }

TokenMap all_tokens(std::int64_t seq) {
  TokenMap rows;
  rows.seq_global = rows.seq_local = rows.first_length = seq;
  return rows;
}

const Call large_calls[] = {
    {"fill", [](ExecContext& exec, DType t) { exec.kernels().elementwise.fill(exec, 1, at({more}, t)); }},
    {"scale", [](ExecContext& exec, DType t) { exec.kernels().elementwise.scale(exec, 2, at({more}, t)); }},
    {"gelu", [](ExecContext& exec, DType t) { exec.kernels().elementwise.gelu(exec, at({more}, t), at({more}, t)); }},
    {"gelu_backward",
     [](ExecContext& exec, DType t) {
       exec.kernels().elementwise.gelu_backward(exec, at({more}, t), at({more}, t), at({more}, t));
     }},
    {"swiglu",
     [](ExecContext& exec, DType t) {
       exec.kernels().elementwise.swiglu(exec, at({long_rows, 2 * wide}, t), at({long_rows, wide}, t));
     }},
    {"swiglu_narrow",
     [](ExecContext& exec, DType t) {
       exec.kernels().elementwise.swiglu(exec, at({more, 2}, t), at({more, 1}, t));
     }},
    {"add", [](ExecContext& exec,
               DType t) { exec.kernels().elementwise.add(exec, at({more}, t), at({more}, t), at({more}, t)); }},
    {"copy", [](ExecContext& exec, DType t) { exec.kernels().elementwise.copy(exec, at({more}, t), at({more})); }},
    {"accumulate",
     [](ExecContext& exec, DType t) { exec.kernels().elementwise.accumulate(exec, at({more}, t), at({more})); }},
    {"dot",
     [](ExecContext& exec, DType) {
       exec.kernels().elementwise.dot(exec, at({more}), at({more}), Write::add, at({1}, DType::f64));
     }},
    {"dropout",
     [](ExecContext& exec, DType t) {
       DropoutSpec spec;
       spec.p = 0.5f;
       spec.key = static_cast<const PhiloxKey*>(at({1}).data);
       spec.rows = all_tokens(long_rows);
       spec.cols_global = wide;
       exec.kernels().dropout.apply(exec, at({long_rows, wide}, t), spec, at({long_rows, wide}, t));
     }},
    {"norm",
     [](ExecContext& exec, DType t) {
       exec.kernels().norm.forward(exec, NormKind::layer, at({long_rows, wide}, t), {}, {}, at({wide}), at({wide}),
                                   1e-5f, {}, at({long_rows, wide}, t), at({long_rows}), at({long_rows}));
     }},
    {"norm_narrow",
     [](ExecContext& exec, DType t) {
       exec.kernels().norm.forward(exec, NormKind::rms, at({more, 1}, t), {}, {}, at({1}), {}, 1e-5f, {},
                                   at({more, 1}, t), {}, at({more}));
     }},
    {"norm_backward",
     [](ExecContext& exec, DType t) {
       const MutView rows = at({long_rows, wide}, t);
       exec.kernels().norm.backward(exec, NormKind::rms, rows, rows, at({wide}), {}, at({long_rows}), {}, {},
                                    Write::add, rows, {}, at({wide}), {});
     }},
    {"norm_backward_narrow",
     [](ExecContext& exec, DType t) {
       const MutView rows = at({more, 1}, t);
       exec.kernels().norm.backward(exec, NormKind::rms, rows, rows, at({1}), {}, at({more}), {}, {}, Write::add, rows,
                                    {}, at({1}), {});
     }},
    {"gate",
     [](ExecContext& exec, DType t) {
       exec.kernels().channel.gate(exec, GateFunction::tanh, at({long_rows, wide}, t), at({2 * wide}),
                                   at({long_rows, wide}, t));
     }},
    {"gate_backward",
     [](ExecContext& exec, DType t) {
       const MutView x = at({long_rows, wide}, t);
       exec.kernels().channel.gate_backward(exec, GateFunction::tanh, x, at({2 * wide}), x, x, at({2 * wide}));
     }},
    {"boom",
     [](ExecContext& exec, DType t) {
       exec.kernels().channel.boom(exec, at({long_rows, 4 * wide}, t), at({long_rows, wide}, t));
     }},
    {"boom_backward",
     [](ExecContext& exec, DType t) {
       const MutView x = at({long_rows, 4 * wide}, t);
       exec.kernels().channel.boom_backward(exec, x, at({long_rows, wide}, t), x);
     }},
    {"embedding",
     [](ExecContext& exec, DType t) {
       exec.kernels().embedding.forward(exec, at({long_rows}, DType::i32), at({50257, wide}), {}, {},
                                        all_tokens(long_rows), {}, at({long_rows, wide}, t));
     }},
    {"embedding_backward",
     [](ExecContext& exec, DType t) {
       exec.kernels().embedding.backward(exec, at({long_rows, wide}, t), at({long_rows}, DType::i32), {},
                                         all_tokens(long_rows), {}, at({50257, wide}), {});
     }},
    {"rotary",
     [](ExecContext& exec, DType t) {
       const MutView x = at({1, long_rows, 16, 128}, t);
       exec.kernels().embedding.rotary(exec, x, all_tokens(long_rows), 10000, false, x);
     }},
    {"adamw",
     [](ExecContext& exec, DType) {
       exec.kernels().optim.adamw(exec, at({sizeof(StepState)}, DType::u8), {}, at({more}), at({more}), at({more}),
                                  at({more}));
     }},
    {"reduce",
     [](ExecContext& exec, DType t) {
       exec.kernels().collective.reduce(exec, ReduceOp::sum, at({8, more}, t), at({more}, t));
     }},
    {"attention",
     [](ExecContext& exec, DType) {
       const MutView x = at({long_rows / 256, 256, 16, 128});
       exec.kernels().attention.forward(exec, x, x, x, {}, x, {});
     }},
    {"scan",
     [](ExecContext& exec, DType t) {
       const std::int64_t batch = 1 << 12, steps = 1 << 10;
       exec.kernels().scan.forward(exec, {}, {at({batch, steps, 2 * wide}, t), {}, {}, {}, {}, {}, {}}, {},
                                   at({batch, steps, wide}, t), {}, at({batch, wide}));
     }},
};

class LargeGeometry : public CudaRuntime, public testing::WithParamInterface<Call> {};
INSTANTIATE_TEST_SUITE_P(Calls, LargeGeometry, testing::ValuesIn(large_calls),
                         [](const auto& call) { return std::string(call.param.name); });

TEST_P(LargeGeometry, CoversMoreThan32BitsCountWithAGridThatIsTaken) {
  fake_cuda().memory_bytes = std::size_t{1} << 44;
  const auto device = cuda_module().open({});
  for (const DType activation : {DType::f32, DType::bf16}) {
    fake_cuda().launches.clear();
    ASSERT_EQ(error_of([&] { GetParam().run(device->exec(), activation); }), "");
    ASSERT_FALSE(fake_cuda().launches.empty());
    // A count that was cut to 32 bits leaves one element, or none.
    const auto& largest = *std::ranges::max_element(fake_cuda().launches, {}, &FakeCuda::Launch::blocks);
    EXPECT_GE(largest.blocks, 512) << largest.kernel;
  }
}

TEST_F(LaunchGeometry, BeyondTheGridIsRefusedWithTheKernelsName) {
  const auto device = cuda_module().open({});
  const std::int64_t rows = 4 * (grid_limit + 1);
  const auto norm = [&](std::int64_t count) {
    return error_of([&] {
      device->exec().kernels().norm.forward(device->exec(), NormKind::rms, at({count, 1}), {}, {}, at({1}), {}, 1e-5f,
                                            {}, at({count, 1}), {}, at({count}));
    });
  };
  EXPECT_EQ(norm(rows - 4), "");
  EXPECT_EQ(fake_cuda().launches.back().blocks, grid_limit);
  const std::string said = norm(rows);
  EXPECT_THAT(said, testing::HasSubstr("Forward<float"));
  EXPECT_THAT(said, testing::HasSubstr("would need 2147483648 blocks, a grid has up to 2147483647"));
}

TEST_F(LaunchGeometry, OfARefusedLaunchIsSaidWithTheKernelAndItsSizes) {
  const auto device = cuda_module().open({});
  fake_cuda().fail("cudaLaunchKernel", cudaErrorLaunchOutOfResources);
  EXPECT_THAT(error_of([&] { device->exec().kernels().elementwise.fill(device->exec(), 1, at({1000})); }),
              testing::AllOf(testing::HasSubstr("cudaLaunchKernel of "), testing::HasSubstr("Fill<float>"),
                             testing::HasSubstr("1 blocks of 256 threads with 0 bytes of shared memory: "),
                             testing::HasSubstr("cudaErrorLaunchOutOfResources")));
}

TEST_F(LaunchGeometry, OfNothingIsNoLaunch) {
  const auto device = cuda_module().open({});
  fake_cuda().launches.clear();
  for (const DType activation : {DType::f32, DType::bf16}) {
    device->exec().kernels().elementwise.fill(device->exec(), 1, at({0}, activation));
    device->exec().kernels().elementwise.gelu(device->exec(), at({0}, activation), at({0}, activation));
    device->exec().kernels().norm.forward(device->exec(), NormKind::rms, at({0, 8}, activation), {}, {}, at({8}), {},
                                          1e-5f, {}, at({0, 8}, activation), {}, at({0}));
  }
  EXPECT_TRUE(fake_cuda().launches.empty());
}

}  // namespace
}  // namespace weft::test
