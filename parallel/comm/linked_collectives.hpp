// Weft's collectives by a device's own links: those that links compute otherwise go in parts that the device reduces.
#pragma once
#include <cstddef>

#include "core/kernels/device_links.hpp"
#include "parallel/comm/collective.hpp"

namespace weft {

class LinkedCollectives {
 public:
  /// `group` and `queue` outlive it.
  LinkedCollectives(DeviceGroup& group, ExecContext& queue, int rank, int size)
      : group_(group), queue_(queue), rank_(rank), size_(size) {}

  /// Bytes of scratch that enqueue() wants for it, aligned to 64 bytes.
  std::size_t scratch_bytes(const Collective& what) const;
  /// Enqueues any collective but messages and barriers. The scratch is in use until the queue is past it.
  void enqueue(const Collective& what, void* scratch);

 private:
  /// Part r of the input of all ranks goes to rank r, which reduces it.
  struct Parts {
    DType dtype = DType::f32;  ///< that travels
    std::int64_t part = 0;     ///< elements
    bool converts = false;     ///< the input is copied first: to another dtype, or behind it to equal parts
    std::size_t bytes = 0;     ///< of one copy of all parts
  };
  Parts parts_of(const Collective& what) const;
  void all_reduce_in_parts(const Collective& what, char* scratch);
  void reduce_scatter_in_parts(const Collective& what, char* scratch);
  void exclusive_scan(const Collective& what, char* scratch);
  void convert(View from, MutView to);

  DeviceGroup& group_;
  ExecContext& queue_;
  int rank_;
  int size_;
};

}  // namespace weft
