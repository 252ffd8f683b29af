// A CUDA device over the stand-in for the CUDA runtime.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/kernels/backend_module.hpp"
#include "core/kernels/table.hpp"
#include "tests/unit/cuda/fake_cuda.hpp"

extern "C" weft::BackendModule* weft_backend(std::uint64_t abi_hash);

namespace weft::test {

inline BackendModule& cuda_module() { return *weft_backend(kernel_abi_hash()); }

/// What `work` says when it throws Error; empty if it does not. Another exception fails the test.
template <class Work>
std::string error_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "not an Error: " << error.what();
  }
  return {};
}

/// Whatever happened, everything was given back, nothing was done that a runtime does not report, and this thread's next
/// call finds no error of before.
inline void expect_clean() {
  EXPECT_TRUE(fake_cuda().live() == FakeCuda::Live{}) << testing::PrintToString([] {
    const FakeCuda::Live live = fake_cuda().live();
    return std::vector<int>{live.device_blocks, live.pinned_blocks, live.streams,    live.events,
                            live.captures,      live.graphs,        live.executables};
  }()) << " blocks, pinned blocks, streams, events, captures, graphs and executable graphs live";
  EXPECT_THAT(fake_cuda().faults_of_the_caller, testing::IsEmpty());
  if (!is_sticky(fake_cuda().failing_status)) {
    EXPECT_STREQ(cudaGetErrorName(cudaGetLastError()), "cudaSuccess") << "is left for the next call";
  }
}

class CudaRuntime : public testing::Test {
 protected:
  CudaRuntime() { fake_cuda().reset(); }
  ~CudaRuntime() override {
    expect_clean();
    fake_cuda().reset();
  }
};

/// Values in the memory of a device.
class DeviceValues {
 public:
  DeviceValues(Device& device, std::int64_t count) : device_(device), count_(count) {
    data_ = device.memory().allocate(bytes(), MemoryUse::activation);
  }
  ~DeviceValues() { device_.memory().deallocate(data_, bytes(), MemoryUse::activation); }
  DeviceValues(const DeviceValues&) = delete;
  DeviceValues& operator=(const DeviceValues&) = delete;

  MutView view() const { return MutView(data_, {count_}, DType::f32, device_.memory().device()); }
  void* data() const { return data_; }
  void put(const std::vector<float>& values) {
    device_.exec().kernels().transfer.upload(device_.exec(), View(values.data(), {count_}, DType::f32), view());
  }
  std::vector<float> get() const {
    std::vector<float> values(static_cast<std::size_t>(count_), -1);
    device_.exec().kernels().transfer.download(device_.exec(), view(), MutView(values.data(), {count_}, DType::f32));
    return values;
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(float); }
  Device& device_;
  std::int64_t count_;
  void* data_;
};

/// `count` values that differ from those of another start.
inline std::vector<float> values_from(float start, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = start++;
  return values;
}

}  // namespace weft::test
