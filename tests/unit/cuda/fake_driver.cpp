// A CUDA driver without a device, for libraries that look for one before they compile kernels: it takes compiled code and
// refuses all else. Known to the loader as libcuda.so.1.

namespace {

constexpr int success = 0, stub_library = 34;
int something;

}  // namespace

extern "C" {

int cuLibraryLoadData(void** library) {
  *library = &something;
  return success;
}
int cuLibraryUnload() { return success; }
int cuLibraryGetKernel(void** kernel) {
  *kernel = &something;
  return success;
}
int cuKernelSetAttribute() { return success; }
int cuKernelGetAttribute(int* value) {
  *value = 0;
  return success;
}

int cuCtxGetCurrent() { return stub_library; }
int cuCtxGetDevice() { return stub_library; }
int cuCtxGetLimit() { return stub_library; }
int cuCtxPopCurrent() { return stub_library; }
int cuCtxPushCurrent() { return stub_library; }
int cuDeviceGet() { return stub_library; }
int cuDeviceGetAttribute() { return stub_library; }
int cuDeviceGetCount() { return stub_library; }
int cuDevicePrimaryCtxRelease() { return stub_library; }
int cuDevicePrimaryCtxReset() { return stub_library; }
int cuDevicePrimaryCtxRetain() { return stub_library; }
int cuDriverGetVersion() { return stub_library; }
int cuFuncGetAttribute() { return stub_library; }
int cuFuncSetAttribute() { return stub_library; }
int cuGetErrorName() { return stub_library; }
int cuGetErrorString() { return stub_library; }
int cuInit() { return stub_library; }
int cuLaunchCooperativeKernel() { return stub_library; }
int cuLaunchKernel() { return stub_library; }
int cuLaunchKernelEx() { return stub_library; }
int cuLibraryLoadFromFile() { return stub_library; }
int cuLinkAddData() { return stub_library; }
int cuLinkAddData_v2() { return stub_library; }
int cuLinkAddFile_v2() { return stub_library; }
int cuLinkComplete() { return stub_library; }
int cuLinkCreate() { return stub_library; }
int cuLinkCreate_v2() { return stub_library; }
int cuLinkDestroy() { return stub_library; }
int cuMemcpyDtoH_v2() { return stub_library; }
int cuModuleGetFunction() { return stub_library; }
int cuModuleGetGlobal_v2() { return stub_library; }
int cuModuleLoadData() { return stub_library; }
int cuModuleLoadDataEx() { return stub_library; }
int cuModuleLoadFatBinary() { return stub_library; }
int cuModuleUnload() { return stub_library; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor() { return stub_library; }
int cuOccupancyMaxPotentialClusterSize() { return stub_library; }
int cuStreamGetCtx() { return stub_library; }
int cuStreamSynchronize() { return stub_library; }
int cuTensorMapEncodeTiled() { return stub_library; }

}  // extern "C"
