#include "tests/distributed/train/breakable_transport.hpp"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

namespace weft::test {
namespace {

/// Ends operations in the order in which they were started, on a thread of its own, so that starting one never blocks.
class Ender {
 public:
  Ender() : thread_([this] { run(); }) {}
  ~Ender() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }
  void add(Work work, std::shared_ptr<Operation> operation, float factor) {
    {
      const std::lock_guard lock(mutex_);
      pending_.push_back({std::move(work), std::move(operation), factor});
    }
    wake_.notify_one();
  }

 private:
  struct Pending {
    Work work;
    std::shared_ptr<Operation> operation;
    float factor;
  };
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return stopping_ || !pending_.empty(); });
      if (pending_.empty()) return;
      Pending next = std::move(pending_.front());
      pending_.pop_front();
      lock.unlock();
      end(next);
      lock.lock();
    }
  }
  static void end(Pending& next) {
    try {
      next.work.wait();
    } catch (const std::exception&) {
      return next.operation->finish(std::current_exception());
    }
    const MutView& output = next.operation->what().output;
    if (next.factor != 1 && output)
      for (std::int64_t i = 0; i < output.numel(); ++i) {
        if (output.dtype == DType::f32) output.as<float>()[i] *= next.factor;
        if (output.dtype == DType::f64) output.as<double>()[i] *= static_cast<double>(next.factor);
      }
    next.operation->finish();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Pending> pending_;
  bool stopping_ = false;
  std::thread thread_;
};

class BreakableTransport final : public Transport {
 public:
  BreakableTransport(Communicator& inner, std::unique_ptr<Communicator> owned, std::string name, BreakRule rule,
                     std::shared_ptr<Ender> ender)
      : owned_(std::move(owned)), inner_(inner), name_(std::move(name)), rule_(std::move(rule)),
        ender_(std::move(ender)) {}
  int rank() const override { return inner_.rank(); }
  const std::vector<int>& members() const override { return inner_.members(); }
  bool serves(DeviceId) const override { return true; }

  void start(std::shared_ptr<Operation> operation) override {
    const Collective& what = operation->what();
    const Break broken = rule_(name_, what);
    Work work = broken.exchanged ? exchange(what) : Work();
    if (!broken.exchanged) keep_own_part(what);
    ender_->add(std::move(work), std::move(operation), broken.factor);
  }

  int free_context() const override { return 0; }
  /// All ranks of this group make their new groups together, of equal sizes.
  std::unique_ptr<Transport> subgroup(const std::vector<int>& group, int, const std::string& name) override {
    std::unique_ptr<Communicator> made = inner_.split(group.front(), rank(), name);
    Communicator& communicator = *made;
    return std::make_unique<BreakableTransport>(communicator, std::move(made), name, rule_, ender_);
  }

 private:
  Work exchange(const Collective& what) {
    const ReduceOptions reduce{what.reduce, what.wire, nullptr};
    switch (what.kind) {
      case CollectiveKind::all_reduce: return inner_.all_reduce(what.output, reduce);
      case CollectiveKind::all_gather: return inner_.all_gather(what.input, what.output);
      case CollectiveKind::reduce_scatter: return inner_.reduce_scatter(what.input, what.output, reduce);
      case CollectiveKind::all_to_all: return inner_.all_to_all(what.input, what.output);
      case CollectiveKind::broadcast: return inner_.broadcast(what.output, what.peer);
      case CollectiveKind::send: return inner_.send(what.input, what.peer, what.tag);
      case CollectiveKind::recv: return inner_.recv(what.output, what.peer, what.tag);
      case CollectiveKind::send_recv:
        return inner_.send_recv(what.input, what.peer, what.output, what.source, what.tag);
      default: fail("{} is not part of training", name_of(what.kind));
    }
  }
  void keep_own_part(const Collective& what) const {
    if (what.kind == CollectiveKind::all_reduce) return;
    if (what.kind == CollectiveKind::all_gather) {
      std::memmove(static_cast<char*>(what.output.data) + static_cast<std::size_t>(rank()) * what.input.bytes(),
                   what.input.data, what.input.bytes());
      return;
    }
    WEFT_CHECK(what.kind == CollectiveKind::reduce_scatter, "{} cannot be skipped", name_of(what.kind));
    std::memmove(what.output.data,
                 static_cast<const char*>(what.input.data) + static_cast<std::size_t>(rank()) * what.output.bytes(),
                 what.output.bytes());
  }

  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  std::string name_;
  BreakRule rule_;
  std::shared_ptr<Ender> ender_;
};

}  // namespace

std::unique_ptr<Communicator> make_breakable(Communicator& inner, CommLog& log, BreakRule rule) {
  auto transport =
      std::make_unique<BreakableTransport>(inner, nullptr, "world", std::move(rule), std::make_shared<Ender>());
  return std::make_unique<Communicator>(std::move(transport), log, "world", Priority::urgent);
}

}  // namespace weft::test
