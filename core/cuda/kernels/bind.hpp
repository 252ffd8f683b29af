// What the kernel files bind.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "core/kernels/backend_module.hpp"
#include "core/kernels/table.hpp"

namespace weft::cuda {

void bind_collective(KernelTable& table);
void bind_norm(KernelTable& table);
void bind_dropout(KernelTable& table);
void bind_elementwise(KernelTable& table);
void bind_channels(KernelTable& table);
void bind_embedding(KernelTable& table);
void bind_attention(KernelTable& table);
void bind_attention_merge(KernelTable& table);
void bind_linear(KernelTable& table);
void bind_optim(KernelTable& table);
void bind_scaled_add(KernelTable& table);
void bind_scan(KernelTable& table);
void bind_recurrent(KernelTable& table);
/// Copies from and to the host, which are no kernels: by the CUDA runtime, or on fibers.
void bind_transfer(KernelTable& table);

/// Binds every slot. Throws Error if the hash is not this build's.
void bind(KernelTable& table, std::uint64_t abi_hash);

/// Handles and caches that these kernels expect in ExecContext::backend. Of the options it takes the folders and the products.
std::unique_ptr<BackendState> make_state(const DeviceOptions& options = {});

}  // namespace weft::cuda
