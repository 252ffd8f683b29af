#include "core/cuda/kernels/bind.hpp"

namespace weft::cuda {

void bind(KernelTable& table, std::uint64_t abi_hash) {
  WEFT_CHECK(abi_hash == kernel_abi_hash(), "the CUDA backend belongs to another build");
  bind_collective(table);
  bind_norm(table);
  bind_dropout(table);
  bind_elementwise(table);
  bind_channels(table);
  bind_embedding(table);
  bind_attention(table);
  bind_attention_merge(table);
  bind_linear(table);
  bind_optim(table);
  bind_scaled_add(table);
  bind_scan(table);
  bind_recurrent(table);
  bind_transfer(table);
}

}  // namespace weft::cuda
