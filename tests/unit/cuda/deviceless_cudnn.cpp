// The installed cuDNN for a GPU that is not there: the functions that Weft calls, passed on to the library, with a
// description of a GPU wherever Weft gives a handle. Everything up to finished plans works so; nothing can be executed.
#include <cudnn.h>
#include <dlfcn.h>

#include <map>
#include <string>

namespace {

std::string device_json(int capability) {
  // The numbers that NVIDIA documents for A100, H100 and B200.
  struct Gpu {
    const char* name;
    int processors, shared, clock, memory_clock, cache;
    const char* memory;
  };
  const Gpu gpu = capability < 90 ? Gpu{"NVIDIA A100-SXM4-80GB", 108, 166912, 1410000, 1593000, 41943040, "85000000000"}
                  : capability < 100
                      ? Gpu{"NVIDIA H100 80GB HBM3", 132, 232448, 1980000, 2619000, 52428800, "85000000000"}
                      : Gpu{"NVIDIA B200", 148, 232448, 1965000, 3996000, 132644864, "190000000000"};
  const auto number = [](const char* name, int value) {
    return std::string("\"") + name + "\":" + std::to_string(value) + ",";
  };
  return number("deviceVer", capability * 10).insert(0, "{") + "\"deviceName\":\"" + gpu.name + "\"," +
         number("driverVer", 13000) + "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64]," +
         number("regsPerBlock", 65536) + number("multiProcessorCount", gpu.processors) + number("warpSize", 32) +
         number("maxSharedMemoryPerBlock", 49152) + number("maxSharedMemoryPerBlockOptin", gpu.shared) +
         number("reservedSharedMemoryPerBlock", 1024) + number("maxRegistersPerSM", 65536) +
         number("maxCtasPerSM", 32) + number("maxThreadsPerBlock", 1024) + number("maxThreadsPerSM", 2048) +
         number("pciDeviceId", 0) + number("isTccDriver", 0) + number("supportCoopLaunch", 1) +
         number("smClockRateKHz", gpu.clock) + number("memClockRateKHz", gpu.memory_clock) +
         number("l2CacheSize", gpu.cache) + "\"totalGlobalMem\":" + gpu.memory + ",\"cudaDeviceId\":0}";
}

template <class Function>
Function* real(const char* name) {
  static void* const library = [] {
    dlopen(WEFT_FAKE_DRIVER, RTLD_NOW | RTLD_LOCAL);  // found from now on by its name
    return dlopen(WEFT_REAL_CUDNN, RTLD_NOW | RTLD_LOCAL);
  }();
  return library ? reinterpret_cast<Function*>(dlsym(library, name)) : nullptr;
}
#define REAL(name) real<decltype(::name)>(#name)

struct State {
  int capability = 90;
  cudnnBackendDescriptor_t device = nullptr;
  std::map<cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t> types;
};
State state;

cudnnStatus_t set_device(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name) {
  return REAL(cudnnBackendSetAttribute)(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &state.device);
}

}  // namespace

extern "C" {

int* deviceless_capability() { return &state.capability; }

std::size_t cudnnGetVersion() { return REAL(cudnnGetVersion) ? REAL(cudnnGetVersion)() : 0; }
std::size_t cudnnGetCudartVersion() { return REAL(cudnnGetCudartVersion)(); }
const char* cudnnGetErrorString(cudnnStatus_t status) { return REAL(cudnnGetErrorString)(status); }
void cudnnGetLastErrorString(char* message, std::size_t size) { REAL(cudnnGetLastErrorString)(message, size); }

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  const std::string json = device_json(state.capability);
  *handle = reinterpret_cast<cudnnHandle_t>(&state);
  cudnnStatus_t status = REAL(cudnnBackendCreateDescriptor)(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &state.device);
  if (status == CUDNN_STATUS_SUCCESS)
    status = REAL(cudnnBackendSetAttribute)(state.device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                            static_cast<std::int64_t>(json.size() + 1), json.c_str());
  return status == CUDNN_STATUS_SUCCESS ? REAL(cudnnBackendFinalize)(state.device) : status;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t) { return REAL(cudnnBackendDestroyDescriptor)(state.device); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* made) {
  const cudnnStatus_t status = REAL(cudnnBackendCreateDescriptor)(type, made);
  if (status == CUDNN_STATUS_SUCCESS) state.types[*made] = type;
  return status;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  state.types.erase(descriptor);
  return REAL(cudnnBackendDestroyDescriptor)(descriptor);
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count, const void* values) {
  if (type != CUDNN_TYPE_HANDLE) return REAL(cudnnBackendSetAttribute)(descriptor, name, type, count, values);
  return state.types.at(descriptor) == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR
             ? set_device(descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP)
             : CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t room, std::int64_t* count,
                                       void* values) {
  return REAL(cudnnBackendGetAttribute)(descriptor, name, type, room, count, values);
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
  if (state.types.at(descriptor) == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
    status = set_device(descriptor, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP);
  if (state.types.at(descriptor) == CUDNN_BACKEND_ENGINE_DESCRIPTOR)
    status = set_device(descriptor, CUDNN_ATTR_ENGINE_DEVICEPROP);
  return status == CUDNN_STATUS_SUCCESS ? REAL(cudnnBackendFinalize)(descriptor) : status;
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t) {
  return CUDNN_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
