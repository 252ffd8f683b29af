// cuDNN's graph interface: its entry points, looked up when the program runs, and its descriptors.
#pragma once
#include <cudnn.h>

#include <cstdint>
#include <span>
#include <string>

#include "core/cuda/handle.hpp"
#include "core/cuda/library.hpp"

namespace weft::cuda {

/// The functions that Weft calls.
struct Cudnn {
  explicit Cudnn(Library opened) : library(std::move(opened)) {}
  /// Throws Error that names the call and cuDNN's reason.
  void check(cudnnStatus_t status, const char* call) const;
  std::string reason(cudnnStatus_t status) const;

  template <class Function>
  using Entry = Function*;

  Library library;
#define WEFT_ENTRY(member, symbol) Entry<decltype(::symbol)> member = library.function<decltype(::symbol)>(#symbol)
  WEFT_ENTRY(version, cudnnGetVersion);
  WEFT_ENTRY(runtime_version, cudnnGetCudartVersion);
  WEFT_ENTRY(status_text, cudnnGetErrorString);
  WEFT_ENTRY(last_error, cudnnGetLastErrorString);
  WEFT_ENTRY(create, cudnnCreate);
  WEFT_ENTRY(destroy, cudnnDestroy);
  WEFT_ENTRY(set_stream, cudnnSetStream);
  WEFT_ENTRY(create_descriptor, cudnnBackendCreateDescriptor);
  WEFT_ENTRY(destroy_descriptor, cudnnBackendDestroyDescriptor);
  WEFT_ENTRY(finalize, cudnnBackendFinalize);
  WEFT_ENTRY(set_attribute, cudnnBackendSetAttribute);
  WEFT_ENTRY(get_attribute, cudnnBackendGetAttribute);
  WEFT_ENTRY(execute, cudnnBackendExecute);
#undef WEFT_ENTRY
};

/// The attribute type that goes with a C++ type.
constexpr cudnnBackendAttributeType_t type_of(const std::int64_t*) { return CUDNN_TYPE_INT64; }
constexpr cudnnBackendAttributeType_t type_of(const bool*) { return CUDNN_TYPE_BOOLEAN; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnHandle_t*) { return CUDNN_TYPE_HANDLE; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnDataType_t*) { return CUDNN_TYPE_DATA_TYPE; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnBackendHeurMode_t*) { return CUDNN_TYPE_HEUR_MODE; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnBackendKnobType_t*) { return CUDNN_TYPE_KNOB_TYPE; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnBackendNumericalNote_t*) { return CUDNN_TYPE_NUMERICAL_NOTE; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnPointwiseMode_t*) { return CUDNN_TYPE_POINTWISE_MODE; }
constexpr cudnnBackendAttributeType_t type_of(const cudnnReduceTensorOp_t*) {
  return CUDNN_TYPE_REDUCTION_OPERATOR_TYPE;
}
constexpr cudnnBackendAttributeType_t type_of(const void* const*) { return CUDNN_TYPE_VOID_PTR; }

/// A backend descriptor, ended once. Errors of its calls throw Error; finalize says how it went.
class CudnnDescriptor {
 public:
  CudnnDescriptor() = default;
  CudnnDescriptor(const Cudnn& api, cudnnBackendDescriptorType_t type);

  template <class T>
  void set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    set(name, type_of(values.data()), static_cast<std::int64_t>(values.size()), values.data());
  }
  template <class T>
  void set(cudnnBackendAttributeName_t name, const T& value) {
    set(name, std::span<const T>(&value, 1));
  }
  void set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value) {
    const cudnnBackendDescriptor_t raw = value.get();
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  }
  void set(cudnnBackendAttributeName_t name, std::span<const CudnnDescriptor> values);

  /// Up to as many values as there is room for; returns how many there are in all.
  template <class T>
  std::int64_t get(cudnnBackendAttributeName_t name, std::span<T> values) const {
    return get(name, type_of(values.data()), static_cast<std::int64_t>(values.size()), values.data());
  }
  std::int64_t get(cudnnBackendAttributeName_t name, std::span<const CudnnDescriptor> into) const;

  cudnnStatus_t finalize();
  /// Finalizes; throws Error if that fails.
  CudnnDescriptor finished(const char* what) &&;

  cudnnBackendDescriptor_t get() const { return handle_.get(); }

 private:
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count, const void* values);
  std::int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t room,
                   void* values) const;

  const Cudnn* api_ = nullptr;
  Handle<cudnnBackendDescriptor_t, decltype(&cudnnBackendDestroyDescriptor)> handle_;
};

}  // namespace weft::cuda
