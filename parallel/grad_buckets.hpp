// Gradient sums in buckets that leave while backward still runs (Li et al. 2020, "PyTorch Distributed"), each over the ranks
// that its parameters' slices name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/nn/parameter_store.hpp"
#include "parallel/mesh.hpp"
#include "parallel/shares.hpp"

namespace weft {

struct BucketOptions {
  std::size_t bytes = std::size_t{4} << 20;  ///< a bucket is closed when it reaches this
  Wire wire = Wire::native;                  ///< how gradients travel; sums are f32 either way
};

/// Waits a bounded time for a collective whose storage is about to go, and drops its error: for destructors that run
/// because something else failed.
void drain(Work& work) noexcept;

/// The parts of the flat gradient buffer whose squares this rank adds to the global norm, so that the ranks of a model's
/// copy (tp, pp) together count each element once.
std::vector<Range> counted_gradients(const ParameterStore& store, const Mesh& mesh);

class GradBuckets {
 public:
  /// Cuts the store's flat gradient buffer into buckets and hangs itself on the parameters' hooks. Collective over the mesh:
  /// throws Error if the ranks' parameters or bucket boundaries differ. The store, the mesh and this outlive training.
  GradBuckets(ParameterStore& store, Mesh& mesh, BucketOptions options);
  ~GradBuckets();
  GradBuckets(const GradBuckets&) = delete;
  GradBuckets& operator=(const GradBuckets&) = delete;

  /// Starts a step; no bucket may be in flight.
  void begin_step();
  /// Waits for all buckets; afterwards the gradients are whole sums. Every parameter must have been declared ready.
  void finish();
  std::size_t size() const { return buckets_.size(); }

 private:
  struct Bucket {
    std::int64_t begin, end;
    Communicator* group;
    int parameters;
    int pending = 0;
    Work work;
  };
  /// A run of a parameter's elements that neighbouring tp ranks hold too.
  struct SharedRun {
    std::int64_t begin, end;
    Communicator* group;
  };
  std::vector<SharedRun> shared_runs(const ParameterStore::Place& place, Mesh& mesh);
  void ready(std::size_t bucket, const std::vector<SharedRun>& runs);

  ParameterStore& store_;
  BucketOptions options_;
  std::vector<Bucket> buckets_;
  std::vector<Work> shared_works_;
  std::map<int, std::unique_ptr<Communicator>> holders_;  ///< of boxes with so many copies
};

}  // namespace weft
