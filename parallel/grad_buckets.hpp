// Gradient sums in buckets that leave while backward still runs (Li et al. 2020, "PyTorch Distributed"), each over the ranks
// that its parameters' slices name. Under ZeRO each rank gets the part of a sum that it keeps.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "core/nn/parameter_store.hpp"
#include "parallel/mesh.hpp"
#include "parallel/shares.hpp"
#include "parallel/zero.hpp"

namespace weft {

struct BucketOptions {
  ZeroStage zero = ZeroStage::none;  ///< as the store was allocated with
  Wire wire = Wire::native;          ///< how gradients travel; sums are f32 either way
};

/// Waits a bounded time for a collective whose storage is about to go, and drops its error: for destructors that run
/// because something else failed.
void drain(Work& work) noexcept;

/// The parts of the flat gradient buffer, as it is in memory, whose squares this rank adds to the global norm, so that the
/// ranks that `norm_axes` names together count each element once.
std::vector<Range> counted_gradients(const ParameterStore& store, const Mesh& mesh, ZeroStage zero);
/// The ranks of a model's copy; all ranks where gradients are shared out.
AxisSet norm_axes(ZeroStage zero);

class GradBuckets {
 public:
  /// Hangs itself on the hooks of the store's parameters, which allocate_parameters() has allocated for the same stage.
  /// Collective over the mesh: throws Error if the ranks' parameters or bucket boundaries differ. The store, the mesh and
  /// this outlive training.
  GradBuckets(ExecContext& exec, ParameterStore& store, Mesh& mesh, BucketOptions options);
  ~GradBuckets();
  GradBuckets(const GradBuckets&) = delete;
  GradBuckets& operator=(const GradBuckets&) = delete;

  /// Starts a step; no bucket may be in flight.
  void begin_step();
  /// Where gradients are shared out, each micro-batch's are summed over the ranks by themselves: starts the next one.
  void begin_round();
  bool sums_each_round() const { return options_.zero >= ZeroStage::gradients; }
  /// Waits for all buckets; afterwards the gradients that this rank keeps are whole sums. Every parameter must have been
  /// declared ready.
  void finish();
  std::size_t size() const { return buckets_.size(); }

 private:
  struct Bucket {
    Communicator* group;
    int pending = 0;
    Tensor grads;  ///< of the round, until they have arrived: what is in memory does not depend on the network's speed
    Tensor round;  ///< this rank's part of the round's sum, where it is added to those of earlier rounds
    Work work;
  };
  /// A run of a parameter's elements that neighbouring tp ranks hold too.
  struct SharedRun {
    std::int64_t begin, end;
    Communicator* group;
  };
  std::vector<SharedRun> shared_runs(const ParameterStore::Place& place, Mesh& mesh);
  void ready(std::size_t bucket, std::size_t place, const std::vector<SharedRun>& runs);
  void make_grads(std::size_t bucket);
  void send(std::size_t bucket);
  void settle(std::size_t bucket);
  /// The bucket's elements in the flat buffer, or its own memory.
  MutView all_grads(std::size_t bucket) const;

  ExecContext& exec_;
  ParameterStore& store_;
  BucketOptions options_;
  std::vector<Bucket> buckets_;
  std::vector<Work> shared_works_;
  std::deque<std::size_t> in_flight_;  ///< of those with memory of their own
  int rounds_ = 0;
  std::map<int, std::unique_ptr<Communicator>> holders_;  ///< of boxes with so many copies
};

}  // namespace weft
