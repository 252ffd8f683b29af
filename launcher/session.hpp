// What train, eval and sample share: the ranks, the mesh, the device with its kernels, and how errors end the job.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/kernels/device.hpp"
#include "core/kernels/table.hpp"
#include "launcher/commands.hpp"
#include "launcher/common_device.hpp"
#include "parallel/comm/mpi_runtime.hpp"
#include "parallel/mesh.hpp"

namespace weft {

/// The device that this rank computes on, and how fast it is.
class Engine {
 public:
  /// Throws UserError when the device that was asked for is not there.
  /// `isa`: the best CPU kernels to use; `products`: algorithms of a GPU's products.
  explicit Engine(const RunOptions& options, cpu::Isa isa = cpu::best_isa(), ProductTable products = {});
  explicit Engine(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  Device& device() { return *device_; }
  ExecContext& exec() { return device_->exec(); }
  Allocator& memory() { return device_->memory(); }
  DeviceTraits traits();
  /// "Intel Xeon …, x86-64-v4, 2 threads", "NVIDIA H200, sm_90".
  std::string description();
  /// FLOP/s of a square matrix product in `dtype` on this rank, measured once a dtype for about a tenth of a second;
  /// 0 where memory is too short even for small ones.
  double matrix_rate(DType dtype);

 private:
  /// Seconds of each of `repeats` or more square products, after one that is not counted.
  std::vector<double> time_product(DType dtype, std::int64_t size, std::size_t repeats);

  std::unique_ptr<Device> device_;
  std::map<DType, double> rates_;  ///< of matrix_rate()
};

/// One rank's device, its place among the others, and what it reports: what a step and an evaluation run on.
struct Worker {
  Engine& engine;
  Mesh& mesh;
  CommLog& log;
};

class Session {
 public:
  /// Throws UserError on a mesh that does not fit the ranks, and when ranks compute on different kinds of devices.
  /// `products`: algorithms of GPUs' products, the same on all ranks; those that it does not list go by a fixed rule.
  Session(const Options& options, MpiRuntime& mpi, CommLog& log, ProductTable products = {});

  CommLog& log() { return log_; }
  MpiRuntime& mpi() { return mpi_; }
  Communicator& world() { return mpi_.world(); }
  Mesh& mesh() { return mesh_; }
  Engine& engine() { return engine_; }
  Worker worker() { return {engine_, mesh_, log_}; }
  /// What --dtype means: the same on all ranks.
  DType compute() const { return compute_; }
  const ProductTable& products() const { return products_; }
  bool main_rank() const { return mpi_.rank() == 0; }

 private:
  /// Takes the kernels that all ranks can, and resolves --dtype.
  DType agree(const RunOptions& options);

  MpiRuntime& mpi_;
  CommLog& log_;
  ProductTable products_;
  Engine engine_;
  DType compute_;
  std::unique_ptr<Communicator> device_world_;  ///< null: mpi_'s reaches the device's memory
  Mesh mesh_;
};

/// with_ranks for a command that computes: its errors are said before the session ends. `products`, where there is one, is
/// collective and says by which algorithms GPUs multiply.
ExitStatus with_session(const Options& options, const std::function<ExitStatus(Session&)>& body,
                        const std::function<ProductTable(Communicator&)>& products = {});

}  // namespace weft
