#include "launcher/devices.hpp"

#include <dlfcn.h>
#include <omp.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <sstream>
#include <vector>

#include "core/base/log.hpp"
#include "core/cpu/device.hpp"
#include "core/kernels/table.hpp"
#include "launcher/placement.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr const char* module_name = "libweft_cuda.so";

std::vector<fs::path> module_paths() {
  if (const auto named = environment("WEFT_CUDA_MODULE")) return {*named};
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  return {program / module_name, program / ".." / "lib" / "weft" / module_name, program / ".." / "lib" / module_name};
}

int threads_of(const RunOptions& options, const RankEnvironment& rank) {
  return options.threads > 0 ? static_cast<int>(options.threads) : default_threads(rank);
}

/// The Python environment that `python3` on PATH belongs to, active or not.
std::optional<fs::path> python_environment() {
  std::istringstream folders(environment("PATH").value_or(""));
  std::error_code ignored;
  for (std::string folder; std::getline(folders, folder, ':');)
    if (fs::exists(fs::path(folder) / "python3", ignored)) return fs::path(folder).parent_path();
  return std::nullopt;
}

/// A CUDA toolkit that the environment names, and where a Python environment keeps NVIDIA's packages.
std::vector<fs::path> library_folders() {
  std::vector<fs::path> folders;
  std::error_code ignored;
  const auto add = [&](const fs::path& root) {
    std::vector<fs::path> found;
    for (const auto& version : fs::directory_iterator(root / "lib", ignored)) {
      if (!version.path().filename().string().starts_with("python")) continue;
      for (const char* packages : {"site-packages", "dist-packages"})
        for (const auto& package : fs::directory_iterator(version.path() / packages / "nvidia", ignored))
          if (fs::is_directory(package.path() / "lib", ignored)) found.push_back(package.path() / "lib");
    }
    std::ranges::sort(found);  // a directory's own order is none
    folders.insert(folders.end(), found.begin(), found.end());
  };
  for (const char* root : {"CUDA_HOME", "CUDA_PATH"})
    if (const auto folder = environment(root)) folders.push_back(fs::path(*folder) / "lib64");
  for (const char* root : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const auto folder = environment(root)) add(*folder);
  if (const auto folder = python_environment()) add(*folder);
  return folders;
}

std::unique_ptr<Device> open_cuda(const CudaModule& cuda, const RunOptions& options, const RankEnvironment& rank,
                                  ProductTable products) {
  DeviceOptions device;
  device.index = rank.local_rank % cuda.devices;
  device.memory_limit = options.memory_limit;
  device.threads = threads_of(options, rank);
  device.library_folders = library_folders();
  device.products = std::move(products);
  device.measure_products = !options.tune.empty();
  return cuda.module->open(device);
}

std::unique_ptr<Device> open_cpu(const RunOptions& options, const RankEnvironment& rank, cpu::Isa isa) {
  const int threads = threads_of(options, rank);
  omp_set_num_threads(threads);
  return cpu::make_device({threads, options.memory_limit, isa});
}

}  // namespace

CudaModule load_cuda_module() {
  CudaModule found;
  for (const fs::path& path : module_paths()) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) continue;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
      const char* reason = dlerror();
      found.missing = fmt::format("{} cannot be loaded: {}", path.string(), reason ? reason : "no reason given");
      return found;
    }
    const auto entry = reinterpret_cast<BackendEntry>(dlsym(library, backend_entry_name));
    BackendModule* module = entry ? entry(kernel_abi_hash()) : nullptr;
    if (!module) {
      found.missing = fmt::format("{} belongs to another build of Weft", path.string());
      return found;
    }
    try {
      found.devices = module->device_count();
      found.module = module;
    } catch (const Error& error) {
      found.missing = error.what();
    }
    return found;
  }
  const auto named = environment("WEFT_CUDA_MODULE");
  found.missing = named ? fmt::format("WEFT_CUDA_MODULE names {}, which does not exist", *named)
                        : "this build has no CUDA module (it is built where nvcc is found)";
  return found;
}

std::unique_ptr<Device> open_device(const RunOptions& options, const RankEnvironment& rank, cpu::Isa isa,
                                    ProductTable products) {
  if (options.device == DeviceChoice::cpu) return open_cpu(options, rank, isa);
  const CudaModule cuda = load_cuda_module();
  if (cuda.module) {
    try {
      return open_cuda(cuda, options, rank, std::move(products));
    } catch (const Error& error) {
      fail_user("--device: the GPU cannot be used: {}; --device cpu would be right", error.what());
    }
  }
  if (options.device == DeviceChoice::cuda)
    fail_user("--device: found cuda, but {}; cpu or auto would be right", cuda.missing);
  // The driver's device file: somebody expects this machine's GPU to be used.
  if (rank.rank == 0 && fs::exists("/dev/nvidiactl"))
    log_warning("no GPU is used: {} (--device cpu would not ask)", cuda.missing);
  return open_cpu(options, rank, isa);
}

}  // namespace weft
