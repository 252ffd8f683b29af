#include "core/cuda/fibers/fiber_state.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

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

WorkQueue::WorkQueue(Runs runs) {
  if (runs == Runs::late) thread_ = std::thread([this] { run_late(); });
}

WorkQueue::~WorkQueue() {
  if (!late()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void WorkQueue::add(std::function<void()> work) {
  if (!late()) return work();
  constexpr std::chrono::milliseconds patience{20};
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back({std::move(work), std::chrono::steady_clock::now() + patience});
    ++added_;
  }
  changed_.notify_all();
}

std::uint64_t WorkQueue::added() {
  const std::lock_guard lock(mutex_);
  return added_;
}

bool WorkQueue::done(std::uint64_t count) {
  const std::lock_guard lock(mutex_);
  return done_ >= count;
}

void WorkQueue::run(std::uint64_t count) {
  std::unique_lock lock(mutex_);
  wanted_ = std::max(wanted_, count);
  changed_.notify_all();
  changed_.wait(lock, [&] { return done_ >= count; });
}

void WorkQueue::run_late() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (waiting_.empty()) {
      if (stopping_) return;
      changed_.wait(lock);
      continue;
    }
    const auto due = waiting_.front().due;
    if (!stopping_ && done_ >= wanted_ && std::chrono::steady_clock::now() < due) {
      changed_.wait_until(lock, due);
      continue;
    }
    const std::function<void()> work = std::move(waiting_.front().work);
    waiting_.pop_front();
    lock.unlock();
    work();
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
}

FiberState* state_of(ExecContext& exec) { return dynamic_cast<FiberState*>(exec.backend.get()); }

DeviceState* device_of(ExecContext& exec) {
  FiberState* state = state_of(exec);
  return state ? &state->device() : nullptr;
}

bool records(DeviceState& device) {
  const std::lock_guard lock(device.mutex);
  return device.recording && device.recorder == std::this_thread::get_id();
}

namespace {

void give(FiberState& state, std::function<void()> work) {
  DeviceState& device = state.device();
  if (records(device))
    device.recording->push_back(std::move(work));
  else
    state.queue()->add(std::move(work));
}

}  // namespace

void FiberState::enqueue(std::function<void()> work) {
  give(*this, [device = device_.get(), work = std::move(work)] {
    device->memory.open();
    work();
    device->memory.close();
  });
}

void enqueue(ExecContext& exec, std::function<void()> work) {
  FiberState* state = state_of(exec);
  if (!state) return work();
  give(*state, [device = &state->device(), work = std::move(work)] {
    const Access access(device);
    work();
  });
}

}  // namespace weft::cuda::fibers
