#include "launcher/counting_device.hpp"

#include <array>
#include <atomic>

#include "core/kernels/table.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft {
namespace {

/// Addresses that nobody reads.
class CountedMemory final : public RawMemory {
 public:
  explicit CountedMemory(DeviceId device) : device_(device) {}
  DeviceId device() const override { return device_; }
  void* allocate(std::size_t bytes) override {
    return reinterpret_cast<void*>(next_.fetch_add((bytes + 4095) / 4096 * 4096));
  }
  void deallocate(void*, std::size_t) noexcept override {}

 private:
  DeviceId device_;
  std::atomic<std::uintptr_t> next_ = std::uintptr_t{1} << 44;
};

class PassedEvent final : public Event {
 public:
  void record(ExecContext&) override {}
  void hold(ExecContext&) override {}
  bool passed() override { return true; }
  void wait() override {}
};

/// What backends keep of a weight beside its master, by direction.
class CountedPack final : public PackedWeight {
 public:
  explicit CountedPack(Allocator& memory) : memory_(memory) {}
  ~CountedPack() override {
    for (const Copy& copy : copies_)
      if (copy.data) memory_.deallocate(copy.data, copy.bytes, MemoryUse::parameter);
  }
  void keep(std::size_t direction, std::size_t bytes) {
    Copy& copy = copies_[direction];
    if (!copy.data) copy = {memory_.allocate(bytes, MemoryUse::parameter), bytes};
  }

 private:
  struct Copy {
    void* data = nullptr;
    std::size_t bytes = 0;
  };
  Allocator& memory_;
  std::array<Copy, 2> copies_{};
};

class CountingQueue final : public ExecContext {
 public:
  CountingQueue(const KernelTable& kernels, Allocator& memory, int threads, bool fast_bf16)
      : ExecContext(kernels, memory, threads), fast_bf16_(fast_bf16) {
    counts_only = true;
  }
  /// A GPU keeps one bf16 copy; a CPU with bf16 units one a direction, and of a recurrent weight in either dtype.
  void pack(const WeightRef& weight, DType dtype, std::size_t direction, bool recurrent) {
    const bool gpu = device().kind == DeviceKind::cuda, bf16 = dtype == DType::bf16;
    if (!weight.pack || !(gpu ? bf16 : recurrent || (bf16 && fast_bf16_))) return;
    if (!*weight.pack) *weight.pack = std::make_unique<CountedPack>(memory());
    const std::size_t element = gpu || (bf16 && fast_bf16_) ? 2 : 4;
    static_cast<CountedPack&>(**weight.pack)
        .keep(gpu ? 0 : direction, static_cast<std::size_t>(weight.value.numel()) * element);
  }

 private:
  bool fast_bf16_;
};

void pack(ExecContext& exec, const WeightRef& weight, DType dtype, std::size_t direction, bool recurrent = false) {
  static_cast<CountingQueue&>(exec).pack(weight, dtype, direction, recurrent);
}

void bind_packing(KernelTable& kernels) {
  LinearKernels& linear = kernels.linear;
  linear.forward.bind([](ExecContext& exec, View x, WeightRef w, View, Epilogue, View, MutView, MutView) {
    pack(exec, w, x.dtype, 0);
  });
  linear.backward_data.bind(
      [](ExecContext& exec, View dy, WeightRef w, Write, MutView) { pack(exec, w, dy.dtype, 1); });
  linear.cross_entropy.bind(
      [](ExecContext& exec, View h, WeightRef w, View, View, float, Write, MutView, MutView dh, MutView) {
        pack(exec, w, h.dtype, 0);
        if (dh) pack(exec, w, h.dtype, 1);
      });
  linear.shard_logits.bind(
      [](ExecContext& exec, View h, WeightRef w, View, VocabShard, MutView, MutView) { pack(exec, w, h.dtype, 0); });
  linear.shard_cross_entropy.bind([](ExecContext& exec, View h, WeightRef w, View, View, float, VocabShard, View, Write,
                                     MutView, MutView, MutView dh, MutView) {
    if (dh) pack(exec, w, h.dtype, 1);
  });
  kernels.recurrent.forward.bind(
      [](ExecContext& exec, RecurrentForward job) { pack(exec, job.weight, job.projected.dtype, 0, true); });
  kernels.recurrent.backward.bind(
      [](ExecContext& exec, RecurrentBackward job) { pack(exec, job.weight, job.y.dtype, 1, true); });
  kernels.recurrent.forward_step.bind([](ExecContext& exec, RecurrentForward job, std::int64_t, View) {
    pack(exec, job.weight, job.projected.dtype, 0, true);
  });
  kernels.recurrent.backward_step.bind([](ExecContext& exec, RecurrentBackward job, std::int64_t, View, MutView,
                                          MutView) { pack(exec, job.weight, job.y.dtype, 1, true); });
}

/// A recorded step's memory.
class CountedGraph final : public WorkGraph {
 public:
  explicit CountedGraph(std::shared_ptr<void> pool) : pool_(std::move(pool)) {}
  void launch() override {}

 private:
  std::shared_ptr<void> pool_;
};

class Counting final : public CountingDevice {
 public:
  Counting(DeviceKind kind, const DeviceFacts& facts, int threads)
      : facts_(facts), threads_(threads),
        // No host memory, whatever the kind: nothing copies there.
        memory_(make_caching_allocator(std::make_unique<CountedMemory>(DeviceId{kind, 1}))),
        host_memory_(make_caching_allocator(make_host_memory())) {
    bind_packing(kernels_);
    exec_ = make_queue();
  }
  const DeviceFacts& facts() const override { return facts_; }
  void enter_thread() override {}
  ExecContext& exec() override { return *exec_; }
  Allocator& host_memory() override { return *host_memory_; }
  std::unique_ptr<ExecContext> make_queue() override {
    return std::make_unique<CountingQueue>(kernels_, *memory_, threads_, facts_.fast_bf16);
  }
  std::unique_ptr<Event> make_event() override { return std::make_unique<PassedEvent>(); }
  bool asynchronous() const override { return false; }
  std::unique_ptr<WorkGraph> capture(const std::function<void()>& work) override {
    memory_->begin_pool();
    work();
    return std::make_unique<CountedGraph>(memory_->end_pool());
  }
  std::size_t most_held() const override { return memory_->most_held(); }

 private:
  DeviceFacts facts_;
  int threads_;
  std::unique_ptr<CachingAllocator> memory_;
  std::unique_ptr<Allocator> host_memory_;
  KernelTable kernels_;
  std::unique_ptr<ExecContext> exec_;
};

}  // namespace

std::unique_ptr<CountingDevice> make_counting_device(DeviceKind kind, const DeviceFacts& facts, int threads) {
  return std::make_unique<Counting>(kind, facts, threads);
}

}  // namespace weft
