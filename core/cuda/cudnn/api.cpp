#include "core/cuda/cudnn/api.hpp"

#include <array>
#include <vector>

#include "core/base/error.hpp"

namespace weft::cuda {

std::string Cudnn::reason(cudnnStatus_t status) const {
  std::array<char, 512> last{};
  last_error(last.data(), last.size());
  last.back() = '\0';
  std::string text = status_text(status);
  if (last[0] != '\0') text += fmt::format(": {}", last.data());
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

void Cudnn::check(cudnnStatus_t status, const char* call) const {
  if (status != CUDNN_STATUS_SUCCESS) [[unlikely]]
    fail("{}: {} ({}, version {})", call, reason(status), library.path(), version());
}

CudnnDescriptor::CudnnDescriptor(const Cudnn& api, cudnnBackendDescriptorType_t type) : api_(&api) {
  cudnnBackendDescriptor_t made = nullptr;
  api.check(api.create_descriptor(type, &made), "cudnnBackendCreateDescriptor");
  handle_ = decltype(handle_)(made, api.destroy_descriptor);
}

void CudnnDescriptor::set(cudnnBackendAttributeName_t name, std::span<const CudnnDescriptor> values) {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const CudnnDescriptor& value : values) raw.push_back(value.get());
  set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(raw.size()), raw.data());
}

std::int64_t CudnnDescriptor::get(cudnnBackendAttributeName_t name, std::span<const CudnnDescriptor> into) const {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const CudnnDescriptor& one : into) raw.push_back(one.get());
  return get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(raw.size()),
             raw.empty() ? nullptr : raw.data());
}

void CudnnDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                          const void* values) {
  api_->check(api_->set_attribute(get(), name, type, count, values), "cudnnBackendSetAttribute");
}

std::int64_t CudnnDescriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t room,
                                  void* values) const {
  std::int64_t count = 0;
  api_->check(api_->get_attribute(get(), name, type, room, &count, values), "cudnnBackendGetAttribute");
  return count;
}

cudnnStatus_t CudnnDescriptor::finalize() { return api_->finalize(get()); }

CudnnDescriptor CudnnDescriptor::finished(const char* what) && {
  if (const cudnnStatus_t status = finalize(); status != CUDNN_STATUS_SUCCESS)
    api_->check(status, fmt::format("cudnnBackendFinalize of {}", what).c_str());
  return std::move(*this);
}

}  // namespace weft::cuda
