// Which device a rank computes on, and where it comes from: the CPU backend, or a module that is loaded.
#pragma once
#include <memory>
#include <string>

#include "core/cpu/backend.hpp"
#include "core/kernels/backend_module.hpp"
#include "launcher/environment.hpp"
#include "launcher/options.hpp"

namespace weft {

/// The CUDA module, or why there is none to use: it was not built, its libraries or driver are missing, there is no
/// device, or it belongs to another build.
struct CudaModule {
  BackendModule* module = nullptr;  ///< lives until the process ends; null: see `missing`
  int devices = 0;
  std::string missing;
};

/// Looks for it beside the program and in ../lib/weft, or takes what WEFT_CUDA_MODULE names.
CudaModule load_cuda_module();

/// The device that `--device` asks for; `auto` takes a GPU where there is one. Ranks of a host take its GPUs in turn. Throws
/// UserError when it cannot be had. `isa`: the best CPU kernels to use; `products`: algorithms of a GPU's products.
std::unique_ptr<Device> open_device(const RunOptions& options, const RankEnvironment& rank, cpu::Isa isa,
                                    ProductTable products = {});

}  // namespace weft
