// A command's body on all ranks: binds this rank, brings MPI up, checks that all ranks were started alike, and turns
// what goes wrong into one line and one status.
#pragma once
#include <functional>

#include "launcher/commands.hpp"
#include "parallel/comm/mpi_runtime.hpp"

namespace weft {

/// Runs `body` between the start and the end of MPI. An error that all ranks meet is said by rank 0 alone and gives
/// every rank its status; an error of some ranks is said by them, and ends the job at once.
ExitStatus with_ranks(const Options& options, const std::function<ExitStatus(MpiRuntime&, CommLog&)>& body);

/// For a handler within `body`: what with_ranks does with the exception that is handled, while what the ranks share is still
/// there, since its end may wait for ranks that do not fail. Ends the job, or throws what with_ranks takes for said.
[[noreturn]] void say_failure(MpiRuntime& mpi, const CommLog& log, const Options& options);

/// Says `message` for this rank, with its host, step and phase, and ends the job at once. From any thread.
[[noreturn]] void fail_job(MpiRuntime& mpi, const CommLog& log, std::string_view command, std::string_view message);

/// "weft train: MESSAGE" to standard error in one write.
void say_error(std::string_view command, std::string_view message);

}  // namespace weft
