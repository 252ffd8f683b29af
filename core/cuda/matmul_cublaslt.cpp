// matmul.hpp by cuBLASLt.
#include "core/cuda/matmul.hpp"
#include "core/cuda/state.hpp"

namespace weft::cuda {

std::size_t matmul_workspace(const ExecContext&) { return cublaslt_workspace; }

bool matmul_fuses(ExecContext& exec, const MatmulArgs& args) { return state_of(exec).products().fuses(args); }

void matmul(ExecContext& exec, const MatmulArgs& args) { state_of(exec).products().run(args, exec.stream.handle); }

}  // namespace weft::cuda
