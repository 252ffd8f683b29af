// What train, eval and sample share: the ranks, the mesh, the device with its kernels, and how errors end the job.
#pragma once
#include <memory>
#include <string>

#include "core/kernels/device.hpp"
#include "core/kernels/table.hpp"
#include "launcher/options.hpp"
#include "parallel/comm/mpi_runtime.hpp"
#include "parallel/mesh.hpp"

namespace weft {

/// The device that this rank computes on, and how fast it is.
class Engine {
 public:
  /// Throws UserError when the device that was asked for is not there.
  explicit Engine(const RunOptions& options);
  explicit Engine(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  Device& device() { return *device_; }
  ExecContext& exec() { return device_->exec(); }
  Allocator& memory() { return device_->memory(); }
  /// `automatic` resolved: bf16 where the device has instructions for it.
  DType compute(DTypeChoice choice) const;
  /// "Intel Xeon …, x86-64-v4, 2 threads", "NVIDIA H200, sm_90".
  std::string description();
  /// FLOP/s of a square matrix product in `dtype` on this rank, measured once for about a tenth of a second.
  double matrix_rate(DType dtype);

 private:
  std::unique_ptr<Device> device_;
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
  /// Throws UserError on a mesh that does not fit the ranks.
  Session(const Options& options, MpiRuntime& mpi, CommLog& log);

  CommLog& log() { return log_; }
  MpiRuntime& mpi() { return mpi_; }
  Communicator& world() { return mpi_.world(); }
  Mesh& mesh() { return mesh_; }
  Engine& engine() { return engine_; }
  Worker worker() { return {engine_, mesh_, log_}; }
  bool main_rank() const { return mpi_.rank() == 0; }

 private:
  MpiRuntime& mpi_;
  CommLog& log_;
  Mesh mesh_;
  Engine engine_;
};

}  // namespace weft
