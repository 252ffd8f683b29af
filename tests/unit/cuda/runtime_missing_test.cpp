// What opening a device says where something is missing, in the words that docs/gpu.md promises.
#include "tests/unit/cuda/fake_cuda_fixture.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class MissingDevice : public CudaRuntime {
 protected:
  static std::string counting() {
    return error_of([] { cuda_module().device_count(); });
  }
  static std::string opening(int index = 0) {
    return error_of([&] {
      DeviceOptions options;
      options.index = index;
      cuda_module().open(options);
    });
  }
};

TEST_F(MissingDevice, NoDriver) {
  fake_cuda().driver = 0;
  EXPECT_THAT(counting(), StartsWith("no NVIDIA driver was found"));
  EXPECT_THAT(counting(), HasSubstr("cudaErrorInsufficientDriver"));
}

TEST_F(MissingDevice, ADriverThatIsTooOldIsNamedWithItsVersion) {
  fake_cuda().driver = 11040;
  EXPECT_THAT(counting(), StartsWith(fmt::format("the NVIDIA driver is for CUDA 11.4, and one for CUDA {} is needed",
                                                 CUDART_VERSION / 1000)));
}

TEST_F(MissingDevice, NoDevice) {
  fake_cuda().devices = 0;
  EXPECT_THAT(counting(), StartsWith("the driver shows this process no GPU"));
  EXPECT_THAT(counting(), HasSubstr("CUDA_VISIBLE_DEVICES"));
}

TEST_F(MissingDevice, OtherReasonsHaveTheirHint) {
  for (const auto& [status, hint] : {std::pair{cudaErrorSystemDriverMismatch, "a restart"},
                                     {cudaErrorSystemNotReady, "nvidia-fabricmanager"},
                                     {cudaErrorInitializationError, "driver for CUDA"},
                                     {cudaErrorStubLibrary, "driver for CUDA"},
                                     {cudaErrorUnknown, "cudaGetDeviceCount"}}) {
    fake_cuda().fail("cudaGetDeviceCount", status);
    const std::string said = counting();
    EXPECT_THAT(said, HasSubstr(hint));
    EXPECT_THAT(said, HasSubstr(cudaGetErrorName(status)));
  }
}

TEST_F(MissingDevice, AnArchitectureWithoutKernelsIsNamedWithThoseThatHaveThem) {
  fake_cuda().capability = 61;
  fake_cuda().has_kernels = false;
  const std::string said = opening();
  EXPECT_THAT(said,
              StartsWith("Fake GPU, sm_61 cannot run Weft's kernels, which were compiled for " WEFT_ARCHITECTURES));
  EXPECT_THAT(said, HasSubstr("cudaErrorNoKernelImageForDevice"));
  EXPECT_THAT(said, HasSubstr("Fill<float>"));
}

TEST_F(MissingDevice, AnIndexThatNobodyHas) { EXPECT_THAT(opening(3), HasSubstr("cudaErrorInvalidDevice")); }

TEST_F(MissingDevice, ALookAtAllDevicesLeavesTheCurrentOne) {
  fake_cuda().devices = 3;
  DeviceOptions options;
  options.index = 1;
  const auto device = cuda_module().open(options);
  const auto all = cuda_module().describe();
  EXPECT_EQ(all.size(), 3);
  EXPECT_EQ(all[1].peers, (std::vector<int>{0, 2}));
  int current = -1;
  cudaGetDevice(&current);
  EXPECT_EQ(current, 1);
}

}  // namespace
}  // namespace weft::test
