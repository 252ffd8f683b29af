// What train, eval and sample share: the ranks, the mesh, the device with its kernels, and how errors end the job.
#pragma once
#include <memory>
#include <string>

#include "core/kernels/table.hpp"
#include "launcher/common_device.hpp"
#include "launcher/options.hpp"
#include "parallel/comm/mpi_runtime.hpp"
#include "parallel/mesh.hpp"

namespace weft {

/// One device with its allocator, kernels and stream.
class Engine {
 public:
  /// Throws UserError when the device that was asked for is not there.
  explicit Engine(const RunOptions& options) : Engine(options, best_traits(options)) {}
  /// With the kernels of `traits`, what all ranks have in common.
  Engine(const RunOptions& options, const DeviceTraits& traits);

  /// What this rank would compute with if it were alone.
  static DeviceTraits best_traits(const RunOptions& options);

  ExecContext& exec() { return *exec_; }
  Allocator& memory() { return *memory_; }
  int threads() const { return exec_->threads(); }
  /// "Intel Xeon …, x86-64-v4, 2 threads".
  std::string description() const;
  /// FLOP/s of a square matrix product in `dtype` on this rank, measured once for about a tenth of a second.
  double matrix_rate(DType dtype);

 private:
  cpu::Isa isa_;
  std::unique_ptr<Allocator> memory_;
  KernelTable kernels_;
  std::unique_ptr<ExecContext> exec_;
  double rate_ = 0;
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
  Session(const Options& options, MpiRuntime& mpi, CommLog& log);

  CommLog& log() { return log_; }
  MpiRuntime& mpi() { return mpi_; }
  Communicator& world() { return mpi_.world(); }
  Mesh& mesh() { return mesh_; }
  Engine& engine() { return engine_; }
  Worker worker() { return {engine_, mesh_, log_}; }
  /// What --dtype means: the same on all ranks.
  DType compute() const { return compute_; }
  bool main_rank() const { return mpi_.rank() == 0; }

 private:
  MpiRuntime& mpi_;
  CommLog& log_;
  Mesh mesh_;
  DeviceTraits traits_;  ///< of all ranks
  Engine engine_;
  DType compute_;
};

}  // namespace weft
