// All slots, by family. `main` makes one table a device and has a backend fill it.
#pragma once
#include <cstdint>

#include "core/kernels/attention.hpp"
#include "core/kernels/channels.hpp"
#include "core/kernels/collective.hpp"
#include "core/kernels/dropout.hpp"
#include "core/kernels/elementwise.hpp"
#include "core/kernels/embedding.hpp"
#include "core/kernels/linear.hpp"
#include "core/kernels/norm.hpp"
#include "core/kernels/optim.hpp"
#include "core/kernels/recurrent.hpp"
#include "core/kernels/scan.hpp"
#include "core/kernels/transfer.hpp"

namespace weft {

struct KernelTable {
  LinearKernels linear;
  NormKernels norm;
  DropoutKernels dropout;
  ElementwiseKernels elementwise;
  EmbeddingKernels embedding;
  AttentionKernels attention;
  OptimKernels optim;
  ScanKernels scan;
  RecurrentKernels recurrent;
  ChannelKernels channel;
  CollectiveKernels collective;
  TransferKernels transfer;
};

/// Changes when the table's layout does; a backend module refuses to fill a table whose hash is not its own.
std::uint64_t kernel_abi_hash();

}  // namespace weft
