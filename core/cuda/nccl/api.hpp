// NCCL: its entry points, looked up when the program runs. Declared here, so that Weft is built without its header; the
// layouts are those of NCCL 2.14 and later.
#pragma once
#include <climits>
#include <cstddef>
#include <string>
#include <vector>

#include "core/cuda/library.hpp"

namespace weft::cuda {

struct NcclId {
  char bytes[128];
};

/// ncclComm_t.
using NcclComm = struct NcclCommOpaque*;
/// cudaStream_t.
using NcclStream = void*;

enum class NcclStatus : int { success = 0, invalid_argument = 4, remote_error = 6, in_progress = 7 };
enum class NcclType : int { u8 = 1, i32 = 2, i64 = 4, f32 = 7, f64 = 8 };
enum class NcclReduce : int { sum = 0, max = 2, min = 3 };

/// ncclConfig_t of 2.14 with the first field after it: newer libraries take the rest for unset by `version`.
struct NcclConfig {
  std::size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 1;
  int cluster_size = INT_MIN;  ///< NCCL_CONFIG_UNDEF_INT
};

/// The functions that Weft calls.
struct Nccl {
  explicit Nccl(Library opened) : library(std::move(opened)) {}
  /// Throws Error that names the call and NCCL's reason.
  void check(NcclStatus status, const char* call, NcclComm comm = nullptr) const;
  /// Name, version and file.
  std::string description() const;

  Library library;
#define WEFT_ENTRY(member, symbol, ...) \
  NcclStatus (*member)(__VA_ARGS__) = library.function<NcclStatus(__VA_ARGS__)>(#symbol)
  WEFT_ENTRY(version, ncclGetVersion, int*);
  WEFT_ENTRY(make_id, ncclGetUniqueId, NcclId*);
  WEFT_ENTRY(init, ncclCommInitRankConfig, NcclComm*, int, NcclId, int, NcclConfig*);
  WEFT_ENTRY(finalize, ncclCommFinalize, NcclComm);
  WEFT_ENTRY(destroy, ncclCommDestroy, NcclComm);
  WEFT_ENTRY(give_up, ncclCommAbort, NcclComm);
  WEFT_ENTRY(async_error, ncclCommGetAsyncError, NcclComm, NcclStatus*);
  WEFT_ENTRY(all_reduce, ncclAllReduce, const void*, void*, std::size_t, NcclType, NcclReduce, NcclComm, NcclStream);
  WEFT_ENTRY(all_gather, ncclAllGather, const void*, void*, std::size_t, NcclType, NcclComm, NcclStream);
  WEFT_ENTRY(reduce_scatter, ncclReduceScatter, const void*, void*, std::size_t, NcclType, NcclReduce, NcclComm,
             NcclStream);
  WEFT_ENTRY(broadcast, ncclBroadcast, const void*, void*, std::size_t, NcclType, int, NcclComm, NcclStream);
  WEFT_ENTRY(send, ncclSend, const void*, std::size_t, NcclType, int, NcclComm, NcclStream);
  WEFT_ENTRY(recv, ncclRecv, void*, std::size_t, NcclType, int, NcclComm, NcclStream);
  WEFT_ENTRY(group_start, ncclGroupStart);
  WEFT_ENTRY(group_end, ncclGroupEnd);
#undef WEFT_ENTRY
  const char* (*status_text)(NcclStatus) = library.function<const char*(NcclStatus)>("ncclGetErrorString");
  const char* (*last_error)(NcclComm) = library.function<const char*(NcclComm)>("ncclGetLastError");
};

/// Opens libnccl.so.2 as it is, then in each folder. Throws Error that says what was tried.
Nccl open_nccl(std::span<const std::filesystem::path> folders, std::string_view name = "libnccl.so.2");

}  // namespace weft::cuda
