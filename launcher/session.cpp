#include "launcher/session.hpp"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

#include "core/base/clock.hpp"
#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "core/tensor/tensor.hpp"
#include "launcher/environment.hpp"
#include "launcher/placement.hpp"

namespace weft {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "CPU";
}

}  // namespace

DeviceTraits Engine::best_traits(const RunOptions& options) {
  if (options.device == DeviceChoice::cuda)
    fail_user("--device: found cuda, but this build has no CUDA module; cpu or auto would be right");
  return {DeviceKind::cpu, cpu::best_isa(), cpu::has_bf16()};
}

Engine::Engine(const RunOptions& options, const DeviceTraits& traits) : isa_(traits.isa) {
  memory_ = make_caching_allocator(make_host_memory(), {options.memory_limit});
  cpu::bind(kernels_, kernel_abi_hash(), isa_);
  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : default_threads(rank_environment());
  omp_set_num_threads(threads);
  exec_ = std::make_unique<ExecContext>(kernels_, *memory_, threads);
  exec_->backend = cpu::make_state();
}

std::string Engine::description() const {
  return fmt::format("{}, {}, {} thread{}", processor_name(), cpu::name_of(isa_), threads(),
                     threads() == 1 ? "" : "s");
}

double Engine::matrix_rate(DType dtype) {
  if (rate_ > 0) return rate_;
  constexpr std::int64_t size = 1024;
  const auto tensor = [&](Shape shape, DType type) {
    Tensor made = Tensor::empty(*memory_, shape, type, MemoryUse::workspace);
    exec_->kernels().elementwise.fill(*exec_, 0.5f, made.mut());
    return made;
  };
  const Tensor x = tensor({size, size}, dtype), y = tensor({size, size}, dtype), w = tensor({size, size}, DType::f32);
  std::unique_ptr<PackedWeight> pack;
  const auto product = [&] {
    exec_->kernels().linear.forward(*exec_, x.view(), {w.view(), &pack, 0}, {}, Epilogue::none, {}, {}, y.mut());
  };
  product();
  std::vector<double> seconds;
  for (const double begin = seconds_now(); seconds.size() < 5 || seconds_now() - begin < 0.1;) {
    const double start = seconds_now();
    product();
    seconds.push_back(seconds_now() - start);
  }
  rate_ = 2.0 * size * size * size / *std::ranges::min_element(seconds);
  return rate_;
}

Session::Session(const Options& options, MpiRuntime& mpi, CommLog& log)
    : mpi_(mpi), log_(log),
      mesh_(mpi.world(), log,
            MeshSizes{static_cast<int>(options.layout.pp), static_cast<int>(options.layout.dp),
                      static_cast<int>(options.layout.sp), static_cast<int>(options.layout.tp)}),
      traits_(agree_on_traits(mpi, Engine::best_traits(options.run))), engine_(options.run, traits_),
      compute_(compute_dtype(options.run.dtype, traits_)) {}

}  // namespace weft
