#include "core/cuda/fibers/fibers.hpp"

#include <algorithm>
#include <array>
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <boost/context/preallocated.hpp>
#include <exception>
#include <utility>
#include <vector>

#include "core/base/error.hpp"
#include "core/cuda/fibers/stack_switch.hpp"

namespace weft::cuda::fibers {

namespace context = boost::context;

namespace {

constexpr std::size_t stack_bytes = 64 << 10;
constexpr std::size_t shared_limit = 227 << 10;  // of a block on sm_90
constexpr std::size_t guard_bytes = 256;
constexpr std::byte guard_byte{0xff};  // four of them are a NaN

struct Barrier {
  int size = 0;
  int arrived = 0;
  std::uint64_t passed = 0;  ///< how often all have come
};

struct Fiber {
  context::fiber code;
  Stack stack;
  bool done = false;
};

}  // namespace

class BlockState {
 public:
  BlockState(int threads, std::size_t shared_bytes)
      : threads_(threads), shared_bytes_(shared_bytes), fibers_(static_cast<std::size_t>(threads)),
        warps_(static_cast<std::size_t>(threads / warp_threads)), shared_((shared_bytes + guard_bytes + 15) / 16 * 2),
        stacks_(stack_bytes) {
    WEFT_CHECK(shared_bytes <= shared_limit, "{} bytes of shared memory, a block has {}", shared_bytes, shared_limit);
  }

  void run(std::int64_t index, std::int64_t blocks, const std::function<void(const Block&)>& body) {
    std::fill(shared_.begin(), shared_.end(), ~std::uint64_t{0});
    all_ = {threads_};
    for (Warp& warp : warps_) warp.barrier = {warp_threads};
    for (int thread = 0; thread < threads_; ++thread) {
      Fiber& fiber = fibers_[static_cast<std::size_t>(thread)];
      fiber.done = false;
      const context::stack_context memory = stacks_.allocate();
      fiber.stack = {static_cast<const std::byte*>(memory.sp) - memory.size, memory.size};
      const context::preallocated place(memory.sp, memory.size, memory);
      fiber.code = context::fiber(std::allocator_arg, place, stacks_, [&, thread](context::fiber&& main) {
        const StackOfFiber running(main_stack_);
        main_ = std::move(main);
        try {
          body(Block(*this, thread, threads_, index, blocks));
        } catch (const context::detail::forced_unwind&) {
          throw;
        } catch (...) {
          if (!thrown_) thrown_ = std::current_exception();
        }
        fibers_[static_cast<std::size_t>(thread)].done = true;
        return std::move(main_);
      });
    }
    schedule(index);
    check_guard(index);
  }

  void wait_all() { wait(all_); }
  void wait_warp(int thread) { wait(warp_of(thread).barrier); }

  std::uint64_t exchange(int thread, std::uint64_t mine, int from) {
    Warp& warp = warp_of(thread);
    // Two sets of places in turn: nobody is a whole barrier ahead of another.
    auto& places = warp.places[warp.barrier.passed % 2];
    const int lane = thread % warp_threads;
    places[static_cast<std::size_t>(lane)] = mine;
    wait(warp.barrier);
    return places[static_cast<std::size_t>(from >= 0 && from < warp_threads ? from : lane)];
  }

  void* shared() { return shared_.data(); }

 private:
  struct Warp {
    Barrier barrier;
    std::array<std::array<std::uint64_t, warp_threads>, 2> places{};
  };

  Warp& warp_of(int thread) { return warps_[static_cast<std::size_t>(thread / warp_threads)]; }

  void wait(Barrier& barrier) {
    moved_ = true;
    if (++barrier.arrived == barrier.size) {
      barrier.arrived = 0;
      ++barrier.passed;
      return;
    }
    const std::uint64_t before = barrier.passed;
    while (barrier.passed == before) {
      const StackSwitch away(main_stack_);
      main_ = std::move(main_).resume();
    }
  }

  static void resume(Fiber& fiber) {
    const StackSwitch away(fiber.stack);
    fiber.code = std::move(fiber.code).resume();
  }

  // Those that have not ended unwind.
  void drop_all() {
    for (Fiber& fiber : fibers_) {
      if (!fiber.code) continue;
      const StackSwitch away(fiber.stack);
      fiber.code = {};
    }
  }

  // Whoever can go on does; a round in which nobody arrives anywhere or ends will be followed by none that does.
  void schedule(std::int64_t index) {
    int left = threads_;
    while (left > 0) {
      moved_ = false;
      for (int i = 0; i < threads_; ++i) {
        const int thread = index % 2 == 0 ? i : threads_ - 1 - i;
        Fiber& fiber = fibers_[static_cast<std::size_t>(thread)];
        if (fiber.done || !fiber.code) continue;
        resume(fiber);
        if (thrown_) {
          drop_all();
          std::rethrow_exception(std::exchange(thrown_, nullptr));
        }
        if (fiber.done) {
          moved_ = true;
          --left;
        }
      }
      if (!moved_) {
        drop_all();
        fail("block {}: {} of {} threads wait at a barrier or shuffle that the others never reach", index, left,
             threads_);
      }
    }
  }

  void check_guard(std::int64_t index) const {
    const auto* bytes = reinterpret_cast<const std::byte*>(shared_.data());
    for (std::size_t i = 0; i < guard_bytes; ++i)
      if (bytes[shared_bytes_ + i] != guard_byte)
        fail("block {}: wrote past the end of its {} bytes of shared memory", index, shared_bytes_);
  }

  int threads_;
  std::size_t shared_bytes_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<std::uint64_t> shared_;
  Barrier all_;
  context::pooled_fixedsize_stack stacks_;
  context::fiber main_;
  Stack main_stack_;
  std::exception_ptr thrown_;
  bool moved_ = false;
};

void sync_block(BlockState& state) { state.wait_all(); }
void sync_warp(BlockState& state, int thread) { state.wait_warp(thread); }
std::uint64_t exchange(BlockState& state, int thread, std::uint64_t mine, int from) {
  return state.exchange(thread, mine, from);
}
void* shared_memory(BlockState& state) { return state.shared(); }

void run_grid(std::int64_t blocks, int threads, std::size_t shared_bytes,
              const std::function<void(const Block&)>& body) {
  if (blocks == 0) return;
  WEFT_CHECK(blocks > 0 && blocks <= 0x7fffffff, "a grid of {} blocks", blocks);
  BlockState state(threads, shared_bytes);
  for (std::int64_t index = 0; index < blocks; ++index) state.run(index, blocks, body);
}

}  // namespace weft::cuda::fibers
