// For tests that run under mpirun: the program's MPI runtime, and the log of its communicators.
#pragma once
#include <gtest/gtest.h>

#include "parallel/comm/mpi_runtime.hpp"

namespace weft::test {

MpiRuntime& mpi();
CommLog& comm_log();
inline Communicator& world() { return mpi().world(); }

}  // namespace weft::test
