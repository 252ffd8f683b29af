// In the place of the other files here where cuDNN's header was not found when Weft was built.
#include "core/cuda/fused_attention.hpp"

namespace weft::cuda {

std::unique_ptr<FusedAttention> make_cudnn_attention(int, std::span<const std::filesystem::path>) {
  fail("Weft was built without cuDNN's header cudnn.h");
}

}  // namespace weft::cuda
