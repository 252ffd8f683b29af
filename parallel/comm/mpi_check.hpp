#pragma once

namespace weft {

/// Throws Error with MPI's own text if `code` is not MPI_SUCCESS; `call` names what was called.
void check_mpi(int code, const char* call);

}  // namespace weft
