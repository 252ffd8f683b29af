#include "core/cuda/fibers/fiber_state.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include "core/base/error.hpp"

namespace weft::cuda::fibers {
namespace {

constexpr std::size_t space = std::size_t{16} << 30;

}  // namespace

ProtectedMemory::ProtectedMemory() {
  void* base = mmap(nullptr, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  WEFT_CHECK(base != MAP_FAILED, "no address space for device memory");
  base_ = static_cast<char*>(base);
}

ProtectedMemory::~ProtectedMemory() { munmap(base_, space); }

void* ProtectedMemory::allocate(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t size = (bytes + page - 1) / page * page;
  if (size > space - used_) return nullptr;
  char* block = base_ + used_;
  used_ += size;
  if (depth_ > 0) protect(PROT_READ | PROT_WRITE);
  return block;
}

void ProtectedMemory::open() {
  const std::lock_guard lock(mutex_);
  if (depth_++ == 0) protect(PROT_READ | PROT_WRITE);
}

void ProtectedMemory::close() {
  const std::lock_guard lock(mutex_);
  if (--depth_ == 0) protect(PROT_NONE);
}

void ProtectedMemory::protect(int rights) {
  if (used_ > 0) WEFT_CHECK(mprotect(base_, used_, rights) == 0, "device memory cannot be protected");
}

DeviceState* device_of(ExecContext& exec) {
  auto* state = dynamic_cast<FiberState*>(exec.backend.get());
  return state ? &state->device() : nullptr;
}

void enqueue(ExecContext& exec, std::function<void()> work) {
  DeviceState* device = device_of(exec);
  const Access access(device);
  if (auto* recording = recording_of(device))
    recording->push_back(std::move(work));
  else
    work();
}

}  // namespace weft::cuda::fibers
