// matmul.hpp by cuBLASLt.
#include "core/cuda/cublaslt.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/matmul.hpp"

namespace weft::cuda {

namespace {

CublasLtState& state_of(ExecContext& exec) {
  auto* state = dynamic_cast<CublasLtState*>(exec.backend.get());
  WEFT_CHECK(state, "the context has no CUDA backend state");
  return *state;
}

}  // namespace

std::size_t matmul_workspace(const ExecContext&) { return cublaslt_workspace; }

bool matmul_fuses(ExecContext& exec, const MatmulArgs& args) { return state_of(exec).fuses(args); }

void matmul(ExecContext& exec, const MatmulArgs& args) { state_of(exec).run(args, exec.stream.handle); }

std::unique_ptr<BackendState> make_state() { return make_cublaslt_state({}); }

}  // namespace weft::cuda
