#include "core/cuda/state.hpp"

namespace weft::cuda {

CudaState::CudaState(CublasLtOptions products, const MakeAttention& attention) : products_(std::move(products)) {
  try {
    attention_ = attention();
  } catch (const Error& error) {
    why_no_attention_ = error.what();
  }
}

std::vector<CudaState::LibraryUse> CudaState::libraries() const {
  return {{"matrix products", true, products_.library().description()},
          {"attention", attention_ != nullptr, attention_ ? attention_->description() : why_no_attention_}};
}

CudaState& state_of(ExecContext& exec) {
  auto* state = dynamic_cast<CudaState*>(exec.backend.get());
  WEFT_CHECK(state, "the context has no CUDA backend state");
  return *state;
}

}  // namespace weft::cuda
