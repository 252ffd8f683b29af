// Tells AddressSanitizer which stack runs: it would take an exception that leaves a fiber for a write beyond the thread's
// stack. Nothing where there is no sanitizer.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace weft::cuda::fibers {

struct Stack {
  const void* bottom = nullptr;
  std::size_t bytes = 0;
};

#if defined(__SANITIZE_ADDRESS__)
/// Before the code that goes on on `next`. `own` keeps what the stack that is left needs; null: it ends.
inline void leave_stack(void** own, const Stack& next) { __sanitizer_start_switch_fiber(own, next.bottom, next.bytes); }
/// First on the stack that was switched to. `own` is what it left with, null the first time.
inline void enter_stack(void* own, Stack& left) { __sanitizer_finish_switch_fiber(own, &left.bottom, &left.bytes); }
#else
inline void leave_stack(void** /*own*/, const Stack& /*next*/) {}
inline void enter_stack(void* /*own*/, Stack& /*left*/) {}
#endif

/// Around a switch that comes back here, by return or by exception.
class StackSwitch {
 public:
  explicit StackSwitch(const Stack& next) { leave_stack(&own_, next); }
  ~StackSwitch() {
    Stack left;
    enter_stack(own_, left);
  }
  StackSwitch(const StackSwitch&) = delete;
  StackSwitch& operator=(const StackSwitch&) = delete;

 private:
  void* own_ = nullptr;
};

/// Around all that runs on a fiber's stack.
class StackOfFiber {
 public:
  /// `caller` becomes the stack that resumed it first.
  explicit StackOfFiber(Stack& caller) : caller_(caller) { enter_stack(nullptr, caller); }
  ~StackOfFiber() { leave_stack(nullptr, caller_); }
  StackOfFiber(const StackOfFiber&) = delete;
  StackOfFiber& operator=(const StackOfFiber&) = delete;

 private:
  const Stack& caller_;
};

}  // namespace weft::cuda::fibers
