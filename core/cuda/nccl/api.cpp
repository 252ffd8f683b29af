#include "core/cuda/nccl/api.hpp"

#include <array>

#include "core/base/error.hpp"

namespace weft::cuda {

void Nccl::check(NcclStatus status, const char* call, NcclComm comm) const {
  if (status == NcclStatus::success) return;
  const char* details = last_error(comm);
  fail("{}: {}{}{} ({})", call, status_text(status), details && *details ? ": " : "", details ? details : "",
       description());
}

std::string Nccl::description() const {
  int number = 0;
  if (version(&number) != NcclStatus::success) return library.path();
  return fmt::format("NCCL {} ({})", version_text(static_cast<std::size_t>(number)), library.path());
}

Nccl open_nccl(std::span<const std::filesystem::path> folders, std::string_view name) {
  const std::array names = {name};
  return Nccl(Library("NCCL", names, folders));
}

}  // namespace weft::cuda
