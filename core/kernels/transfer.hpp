// Copies between the host and a device and within a device, in the order of the context's queue. Both views are contiguous
// and hold the same number of bytes.
#pragma once
#include "core/kernels/slot.hpp"

namespace weft {

struct TransferKernels {
  /// Copies host memory to the device. The host's may be reused when the call returns.
  Slot<void(View host, MutView device)> upload{"transfer.upload"};
  /// As upload without a copy in between. `host` lies in Device::host_memory(), and stays as it is until an event that is
  /// recorded after this call has passed.
  Slot<void(View host, MutView device)> upload_later{"transfer.upload_later"};
  /// Copies device memory to the host and waits until it is there.
  Slot<void(View device, MutView host)> download{"transfer.download"};
  /// As download without waiting. `host` lies in Device::host_memory(), and holds the copy once an event that is recorded
  /// after this call has passed.
  Slot<void(View device, MutView host)> download_later{"transfer.download_later"};
  /// Copies device memory to device memory that does not overlap it.
  Slot<void(View from, MutView to)> copy{"transfer.copy"};
};

}  // namespace weft
