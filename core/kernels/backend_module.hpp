// A backend in a module of its own, loaded when the program runs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/kernels/device.hpp"

namespace weft {

struct DeviceOptions {
  int index = 0;                                       ///< among the devices that this process sees
  std::size_t memory_limit = 0;                        ///< bytes; 0: none
  int threads = 1;                                     ///< of the host
  std::vector<std::filesystem::path> library_folders;  ///< where to look for vendors' libraries after the usual places
  ProductTable products{};        ///< algorithms of matrix products; those not listed go by a fixed rule
  bool measure_products = false;  ///< each product tries its algorithms when it first runs, and its results are none
};

struct DeviceSummary {
  std::string name;  ///< with its architecture
  std::string pci;
  std::size_t memory_bytes = 0;
  std::size_t free_bytes = 0;
  std::vector<int> peers;  ///< devices whose memory it reaches without the host
};

class BackendModule {
 public:
  virtual ~BackendModule() = default;
  /// How many devices this process sees, one or more. Throws Error that says what is missing where there is none.
  virtual int device_count() = 0;
  /// All devices that this process sees. Throws Error that names the call that failed.
  virtual std::vector<DeviceSummary> describe() = 0;
  /// Throws Error that says what is missing (a library, kernels for this device) or which call failed.
  virtual std::unique_ptr<Device> open(const DeviceOptions& options) = 0;
};

/// Every module exports `extern "C" weft::BackendModule* weft_backend(std::uint64_t abi_hash)`: an object that lives as long
/// as the module, which is never unloaded; null when it was built from other kernel signatures.
using BackendEntry = BackendModule* (*)(std::uint64_t abi_hash);
inline constexpr const char* backend_entry_name = "weft_backend";

}  // namespace weft
