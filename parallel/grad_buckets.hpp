// Data-parallel gradient sums in buckets that leave while backward still runs (Li et al. 2020, "PyTorch Distributed").
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/nn/parameter_store.hpp"
#include "parallel/comm/communicator.hpp"

namespace weft {

struct BucketOptions {
  std::size_t bytes = std::size_t{4} << 20;  ///< a bucket is closed when it reaches this
  Wire wire = Wire::native;                  ///< how gradients travel; sums are f32 either way
};

/// Waits a bounded time for a collective whose storage is about to go, and drops its error: for destructors that run
/// because something else failed.
void drain(Work& work) noexcept;

class GradBuckets {
 public:
  /// Cuts the store's flat gradient buffer into buckets and hangs itself on the parameters' hooks. Collective over `group`:
  /// throws Error if the ranks' parameters or bucket boundaries differ. The store, the group and this outlive training.
  GradBuckets(ParameterStore& store, Communicator& group, BucketOptions options);
  ~GradBuckets();
  GradBuckets(const GradBuckets&) = delete;
  GradBuckets& operator=(const GradBuckets&) = delete;

  /// Starts a step; no bucket may be in flight.
  void begin_step();
  /// Waits for all buckets; afterwards the gradients are sums over the group. Every parameter must have been declared ready.
  void finish();
  std::size_t size() const { return buckets_.size(); }

 private:
  struct Bucket {
    std::int64_t begin, end;
    int parameters;
    int pending = 0;
    Work work;
  };
  void ready(std::size_t bucket);

  ParameterStore& store_;
  Communicator& group_;
  BucketOptions options_;
  std::vector<Bucket> buckets_;
};

}  // namespace weft
