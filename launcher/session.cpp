#include "launcher/session.hpp"

#include <algorithm>
#include <vector>

#include "core/base/clock.hpp"
#include "core/base/log.hpp"
#include "core/tensor/tensor.hpp"
#include "launcher/device_world.hpp"
#include "launcher/devices.hpp"
#include "launcher/ranks.hpp"

namespace weft {

Engine::Engine(const RunOptions& options, cpu::Isa isa, ProductTable products)
    : device_(open_device(options, rank_environment(), isa, std::move(products))) {}

DeviceTraits Engine::traits() { return {exec().device().kind, cpu::best_isa(), device_->facts().fast_bf16}; }

std::string Engine::description() {
  if (exec().device().kind != DeviceKind::cpu) return device_->facts().name;
  const int threads = exec().threads();
  return fmt::format("{}, {} thread{}", device_->facts().name, threads, threads == 1 ? "" : "s");
}

double Engine::matrix_rate(DType dtype) {
  double& rate = rates_[dtype];
  if (rate > 0) return rate;
  // Up to the size that keeps the device busy, unless it is so slow that others would wait for it.
  constexpr double slow_seconds = 0.02;
  std::int64_t size = std::min<std::int64_t>(128, device_->facts().product_size);
  while (time_product(dtype, size, 1).front() < slow_seconds && size < device_->facts().product_size) size *= 2;
  size = std::min(size, device_->facts().product_size);
  rate = 2.0 * static_cast<double>(size * size * size) / std::ranges::min(time_product(dtype, size, 5));
  return rate;
}

std::vector<double> Engine::time_product(DType dtype, std::int64_t size, std::size_t repeats) {
  const auto tensor = [&](Shape shape, DType type) {
    Tensor made = Tensor::empty(memory(), shape, type, MemoryUse::workspace);
    exec().kernels().elementwise.fill(exec(), 0.5f, made.mut());
    return made;
  };
  const Tensor x = tensor({size, size}, dtype), y = tensor({size, size}, dtype), w = tensor({size, size}, DType::f32);
  std::unique_ptr<PackedWeight> pack;
  const auto product = [&] {
    exec().kernels().linear.forward(exec(), x.view(), {w.view(), &pack, 0}, {}, Epilogue::none, {}, {}, y.mut());
    synchronize(*device_);
  };
  product();
  std::vector<double> seconds;
  for (const double begin = seconds_now(); seconds.size() < repeats || (repeats > 1 && seconds_now() - begin < 0.1);) {
    const double start = seconds_now();
    product();
    seconds.push_back(seconds_now() - start);
  }
  return seconds;
}

Session::Session(const Options& options, MpiRuntime& mpi, CommLog& log, ProductTable products)
    : mpi_(mpi), log_(log), products_(std::move(products)), engine_(options.run, cpu::best_isa(), products_),
      compute_(agree(options.run)),
      device_world_(make_device_world(
          mpi.world(), engine_.device(), options.run,
          [&mpi, &log, command = options.command](const std::string& report) { fail_job(mpi, log, command, report); })),
      mesh_(device_world_ ? *device_world_ : mpi.world(), log,
            MeshSizes{static_cast<int>(options.layout.pp), static_cast<int>(options.layout.dp),
                      static_cast<int>(options.layout.sp), static_cast<int>(options.layout.tp)}) {
  if (main_rank())
    for (const std::string& warning : engine_.device().facts().warnings) log_warning("{}", warning);
}

// Before any group knows the engine's device: it may become another.
DType Session::agree(const RunOptions& options) {
  const DeviceTraits own = engine_.traits(), common = agree_on_traits(mpi_, own);
  if (own.kind == DeviceKind::cpu && common.isa < own.isa) engine_ = Engine(options, common.isa);
  return compute_dtype(options.dtype, common);
}

}  // namespace weft
