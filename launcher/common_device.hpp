// What all ranks of a job compute with where their processors differ: replicas that compute the norm or the update by other
// instructions would drift apart.
#pragma once
#include <span>
#include <string>

#include "core/base/device.hpp"
#include "core/base/dtype.hpp"
#include "core/cpu/backend.hpp"
#include "launcher/options.hpp"
#include "parallel/comm/mpi_runtime.hpp"

namespace weft {

/// What one rank's device can do, or all can.
struct DeviceTraits {
  DeviceKind kind = DeviceKind::cpu;
  cpu::Isa isa = cpu::Isa::portable;  ///< the best kernels that its processor runs
  bool fast_bf16 = false;             ///< instructions for bf16 products
};

/// The least of all ranks. `ranks` and `places` have one entry a rank. Throws UserError that names ranks and hosts when some
/// compute on another kind of device.
DeviceTraits common_traits(std::span<const DeviceTraits> ranks, std::span<const RankPlace> places);

/// One line about ranks that keep the others from better kernels or from bf16; empty where all are alike.
std::string limits_text(std::span<const DeviceTraits> ranks, std::span<const RankPlace> places);

/// Collective: common_traits() of all ranks, the same on every rank. Rank 0 warns of limits.
DeviceTraits agree_on_traits(MpiRuntime& mpi, const DeviceTraits& own);

/// `automatic` is bf16 where all ranks have instructions for it.
DType compute_dtype(DTypeChoice choice, const DeviceTraits& common);

}  // namespace weft
