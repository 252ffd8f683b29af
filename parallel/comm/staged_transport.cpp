#include "parallel/comm/staged_transport.hpp"

#include <sys/prctl.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "core/kernels/table.hpp"

namespace weft {
namespace {

constexpr std::size_t alignment = 64;

struct Job;

/// What ends of inner operations reach, even when the staging is gone.
struct Arrivals {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<Job>> jobs;
  std::size_t in_flight = 0;  ///< given to inner transports and not finished
  std::size_t buffers = 0;    ///< pinned ones that live
  bool closed = false;        ///< nobody takes jobs any more, and the device may be gone
};

/// Pinned memory of one collective. The inner transport may keep it when the collective has failed.
class PinnedBuffer {
 public:
  PinnedBuffer(std::shared_ptr<Arrivals> arrivals, Allocator& memory, std::size_t bytes)
      : arrivals_(std::move(arrivals)), memory_(memory), bytes_(bytes),
        data_(memory.allocate(bytes, MemoryUse::communication)) {
    const std::lock_guard lock(arrivals_->mutex);
    ++arrivals_->buffers;
  }
  ~PinnedBuffer() {
    const std::lock_guard lock(arrivals_->mutex);
    if (!arrivals_->closed) memory_.deallocate(data_, bytes_, MemoryUse::communication);
    --arrivals_->buffers;
    arrivals_->changed.notify_all();
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  MutView place(std::size_t offset, const View& like) const {
    return {static_cast<char*>(data_) + offset, like.shape, like.dtype};
  }

 private:
  std::shared_ptr<Arrivals> arrivals_;
  Allocator& memory_;
  std::size_t bytes_;
  void* data_;
};

/// Where a collective's views lie in its pinned buffer, and which of them are copied.
struct Layout {
  std::size_t bytes = 0;
  std::size_t input = 0;   ///< offset
  std::size_t output = 0;  ///< offset
  bool downloads = false;
  bool uploads = false;
};

Layout layout_of(const Collective& what, int rank) {
  const std::size_t in = what.input.bytes(), out = what.output.bytes(), place = static_cast<std::size_t>(rank);
  switch (what.kind) {
    case CollectiveKind::all_reduce: return {.bytes = out, .downloads = true, .uploads = true};
    case CollectiveKind::broadcast: return {.bytes = out, .downloads = rank == what.peer, .uploads = rank != what.peer};
    // In place on the host: no second buffer, no copy between them.
    case CollectiveKind::all_gather: return {.bytes = out, .input = place * in, .downloads = true, .uploads = true};
    case CollectiveKind::reduce_scatter:
      return {.bytes = in, .output = place * out, .downloads = true, .uploads = true};
    case CollectiveKind::all_to_all:
    case CollectiveKind::send_recv:
    case CollectiveKind::exclusive_scan: {
      const std::size_t second = (in + alignment - 1) / alignment * alignment;
      return {.bytes = second + out, .output = second, .downloads = true, .uploads = true};
    }
    case CollectiveKind::send: return {.bytes = in, .downloads = true};
    case CollectiveKind::recv: return {.bytes = out, .uploads = true};
    case CollectiveKind::barrier: break;
  }
  return {};
}

bool on_host(const View& view) { return view.device.kind == DeviceKind::cpu; }

/// One operation on its way. The threads have it one after another; `mutex` guards what the waiter's thread touches.
struct Job {
  std::shared_ptr<Operation> operation;  ///< the caller's
  std::shared_ptr<Transport> inner;
  Collective staged;  ///< on host memory
  std::shared_ptr<PinnedBuffer> buffer;
  std::unique_ptr<Event> copied;  ///< null for an operation on host memory
  bool uploads = false;
  std::exception_ptr error;

  std::mutex mutex;
  std::weak_ptr<Operation> running;  ///< the inner transport's
  bool awaited = false;
};

void name_thread(const char* name) { ::prctl(PR_SET_NAME, name); }

}  // namespace

class DeviceStaging::Impl {
 public:
  explicit Impl(Device& device)
      : device_(device), down_(device.make_queue()), up_(device.make_queue()), reached_(device.make_event()),
        starter_([this] { run_starts(); }), lander_([this] { run_arrivals(); }) {}
  ~Impl();

  Device& device() { return device_; }
  void start(std::shared_ptr<Operation> operation, const std::shared_ptr<Transport>& inner);

 private:
  std::unique_ptr<Event> take_event();
  void give_event(std::unique_ptr<Event> event);
  std::shared_ptr<Job> make_job(std::shared_ptr<Operation> operation, const std::shared_ptr<Transport>& inner);
  void run_starts();
  void start_inner(const std::shared_ptr<Job>& job);
  void run_arrivals();
  void land(std::vector<std::shared_ptr<Job>> jobs);

  Device& device_;
  std::unique_ptr<ExecContext> down_;  ///< of the callers' thread
  std::unique_ptr<ExecContext> up_;    ///< of the landing thread
  std::unique_ptr<Event> reached_;     ///< by the queue that computes

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> starts_;
  bool starting_ = false;  ///< the front of starts_ was taken and is not yet started
  bool stopping_ = false;
  std::vector<std::unique_ptr<Event>> events_;  ///< free

  std::shared_ptr<Arrivals> arrivals_ = std::make_shared<Arrivals>();
  std::thread starter_;
  std::thread lander_;
};

DeviceStaging::Impl::~Impl() {
  constexpr std::chrono::seconds patience{10};
  constexpr std::chrono::seconds patience_after_failure{1};  // messages of failed collectives may never end
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  starter_.join();
  {
    std::unique_lock lock(arrivals_->mutex);
    arrivals_->changed.wait_for(lock, patience, [this] { return arrivals_->in_flight == 0; });
    arrivals_->changed.wait_for(lock, patience_after_failure, [this] { return arrivals_->buffers == 0; });
    arrivals_->closed = true;
  }
  arrivals_->changed.notify_all();
  lander_.join();
}

std::unique_ptr<Event> DeviceStaging::Impl::take_event() {
  {
    const std::lock_guard lock(mutex_);
    if (!events_.empty()) {
      auto event = std::move(events_.back());
      events_.pop_back();
      return event;
    }
  }
  return device_.make_event();
}

void DeviceStaging::Impl::give_event(std::unique_ptr<Event> event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(std::move(event));
}

std::shared_ptr<Job> DeviceStaging::Impl::make_job(std::shared_ptr<Operation> operation,
                                                   const std::shared_ptr<Transport>& inner) {
  auto job = std::make_shared<Job>();
  const Collective& what = operation->what();
  job->operation = std::move(operation);
  job->inner = inner;
  job->staged = what;
  if (on_host(what.input) && on_host(what.output)) return job;
  const Layout layout = layout_of(what, inner->rank());
  job->buffer = std::make_shared<PinnedBuffer>(arrivals_, device_.host_memory(), layout.bytes);
  job->uploads = layout.uploads;
  if (what.input) job->staged.input = job->buffer->place(layout.input, what.input);
  if (what.output) job->staged.output = job->buffer->place(layout.output, what.output);
  // Without a download too: what the queue was given before may still use the output.
  job->copied = take_event();
  reached_->record(device_.exec());
  reached_->hold(*down_);
  if (layout.downloads)
    down_->kernels().transfer.download_later(*down_, what.input, job->buffer->place(layout.input, what.input));
  job->copied->record(*down_);
  return job;
}

void DeviceStaging::Impl::start(std::shared_ptr<Operation> operation, const std::shared_ptr<Transport>& inner) {
  const Collective& what = operation->what();
  {
    // Nothing before it waits for the device: the inner transport may have it at once.
    std::unique_lock lock(mutex_);
    if (on_host(what.input) && on_host(what.output) && starts_.empty() && !starting_) {
      lock.unlock();
      inner->start(std::move(operation));
      return;
    }
  }
  std::shared_ptr<Job> job;
  try {
    job = make_job(operation, inner);
  } catch (...) {
    operation->finish(std::current_exception());
    return;
  }
  operation->on_wait = [weak = std::weak_ptr(job)] {
    const auto waited = weak.lock();
    if (!waited) return;
    std::shared_ptr<Operation> running;
    {
      const std::lock_guard lock(waited->mutex);
      waited->awaited = true;
      running = waited->running.lock();
    }
    if (running) running->expect();
  };
  {
    const std::lock_guard lock(mutex_);
    starts_.push_back(std::move(job));
  }
  changed_.notify_all();
}

void DeviceStaging::Impl::run_starts() {
  name_thread("weft-download");
  try {
    device_.enter_thread();
  } catch (const std::exception&) {  // the first event says it again
  }
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !starts_.empty(); });
    if (starts_.empty()) return;
    std::shared_ptr<Job> job = std::move(starts_.front());
    starts_.pop_front();
    starting_ = true;
    lock.unlock();
    try {
      if (job->copied) {
        job->copied->wait();
        give_event(std::move(job->copied));
      }
      start_inner(job);
    } catch (...) {
      job->buffer.reset();
      job->operation->finish(std::current_exception());
    }
    job.reset();
    lock.lock();
    starting_ = false;
  }
}

void DeviceStaging::Impl::start_inner(const std::shared_ptr<Job>& job) {
  // Nobody but the job and the inner transport may hold the buffer: it is free again when the operation ends.
  auto running = std::make_shared<Operation>(*job->operation, job->staged,
                                             job->buffer ? Keep(job->buffer) : job->operation->keep());
  running->on_finish = [arrivals = arrivals_, job](std::exception_ptr error) {
    if (!error && job->uploads) {
      const std::lock_guard lock(arrivals->mutex);
      if (!arrivals->closed) {
        arrivals->jobs.push_back(job);
        arrivals->changed.notify_all();
        return;
      }
      error = std::make_exception_ptr(Error("a collective ended after its device was closed"));
    }
    job->buffer.reset();
    job->operation->finish(error);
    const std::lock_guard lock(arrivals->mutex);
    --arrivals->in_flight;
    arrivals->changed.notify_all();
  };
  {
    const std::lock_guard lock(arrivals_->mutex);
    ++arrivals_->in_flight;
  }
  // The job outlives its group where the inner transport holds on to it.
  const auto inner = std::move(job->inner);
  try {
    inner->start(running);
  } catch (...) {
    running->finish(std::current_exception());
  }
  bool awaited = false;
  {
    const std::lock_guard lock(job->mutex);
    job->running = running;
    awaited = job->awaited;
  }
  if (awaited) running->expect();
}

void DeviceStaging::Impl::run_arrivals() {
  name_thread("weft-upload");
  try {
    device_.enter_thread();
  } catch (const std::exception&) {  // the first upload says it again
  }
  std::unique_lock lock(arrivals_->mutex);
  for (;;) {
    arrivals_->changed.wait(lock, [this] { return arrivals_->closed || !arrivals_->jobs.empty(); });
    if (arrivals_->jobs.empty()) return;
    std::vector<std::shared_ptr<Job>> jobs(arrivals_->jobs.begin(), arrivals_->jobs.end());
    arrivals_->jobs.clear();
    const std::size_t count = jobs.size();
    lock.unlock();
    land(std::move(jobs));
    lock.lock();
    arrivals_->in_flight -= count;
    arrivals_->changed.notify_all();
  }
}

// All copies are enqueued before the first is waited for.
void DeviceStaging::Impl::land(std::vector<std::shared_ptr<Job>> jobs) {
  for (const auto& job : jobs) {
    try {
      job->copied = take_event();
      up_->kernels().transfer.upload_later(*up_, job->staged.output, job->operation->what().output);
      job->copied->record(*up_);
    } catch (...) {
      job->error = std::current_exception();
    }
  }
  for (const auto& job : jobs) {
    if (job->copied) {
      try {
        job->copied->wait();
      } catch (...) {
        if (!job->error) job->error = std::current_exception();
      }
      give_event(std::move(job->copied));
    }
    job->buffer.reset();
    job->operation->finish(job->error);
  }
}

DeviceStaging::DeviceStaging(Device& device) : impl_(std::make_unique<Impl>(device)) {}
DeviceStaging::~DeviceStaging() = default;
bool DeviceStaging::serves(DeviceId device) const { return device == impl_->device().exec().device(); }
void DeviceStaging::start(std::shared_ptr<Operation> operation, const std::shared_ptr<Transport>& inner) {
  impl_->start(std::move(operation), inner);
}

namespace {

class StagedTransport final : public Transport {
 public:
  StagedTransport(std::unique_ptr<Transport> inner, std::shared_ptr<DeviceStaging> staging)
      : inner_(std::move(inner)), staging_(std::move(staging)) {}
  int rank() const override { return inner_->rank(); }
  const std::vector<int>& members() const override { return inner_->members(); }
  bool serves(DeviceId device) const override { return inner_->serves(device) || staging_->serves(device); }
  void start(std::shared_ptr<Operation> operation) override { staging_->start(std::move(operation), inner_); }
  int free_context() const override { return inner_->free_context(); }
  std::unique_ptr<Transport> subgroup(const std::vector<int>& members, int context, const std::string& name) override {
    return std::make_unique<StagedTransport>(inner_->subgroup(members, context, name), staging_);
  }

 private:
  std::shared_ptr<Transport> inner_;
  std::shared_ptr<DeviceStaging> staging_;
};

}  // namespace

std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport> inner,
                                                 std::shared_ptr<DeviceStaging> staging) {
  return std::make_unique<StagedTransport>(std::move(inner), std::move(staging));
}

}  // namespace weft
