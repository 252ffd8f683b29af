#include "launcher/session.hpp"

#include <algorithm>
#include <vector>

#include "core/base/clock.hpp"
#include "core/base/log.hpp"
#include "core/tensor/caching_allocator.hpp"
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
  if (const auto known = rates_.find(dtype); known != rates_.end()) return known->second;
  double& rate = rates_[dtype];
  // Up to the size that keeps the device busy, unless it is so slow that others would wait for it, or memory is short.
  constexpr double slow_seconds = 0.02;
  const std::int64_t largest = device_->facts().product_size;
  std::int64_t size = 0;
  try {
    for (std::int64_t next = std::min<std::int64_t>(128, largest);; next = std::min(2 * next, largest)) {
      const double seconds = time_product(dtype, next, 1).front();
      size = next;
      if (size == largest || seconds >= slow_seconds) break;
    }
  } catch (const OutOfMemory&) {
  }
  if (size > 0) rate = 2.0 * static_cast<double>(size * size * size) / std::ranges::min(time_product(dtype, size, 5));
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

ExitStatus with_session(const Options& options, const std::function<ExitStatus(Session&)>& body,
                        const std::function<ProductTable(Communicator&)>& products) {
  return with_ranks(options, [&](MpiRuntime& mpi, CommLog& log) {
    Session session(options, mpi, log, products ? products(mpi.world()) : ProductTable());
    try {
      return body(session);
    } catch (...) {
      say_failure(mpi, log, options);
    }
  });
}

}  // namespace weft
