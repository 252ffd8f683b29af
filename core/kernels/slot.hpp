// A slot: one kernel's name and signature, filled by a backend.
#pragma once
#include <string_view>

#include "core/base/error.hpp"
#include "core/kernels/exec.hpp"

namespace weft {

template <class Signature>
class Slot;

template <class... Args>
class Slot<void(Args...)> {
 public:
  using Function = void (*)(ExecContext&, Args...);

  explicit constexpr Slot(const char* name) : name_(name) {}
  void bind(Function function) { function_ = function; }
  bool bound() const { return function_ != nullptr; }
  const char* name() const { return name_; }

  /// Throws Error that names the kernel and the device when no backend filled the slot.
  void operator()(ExecContext& exec, Args... args) const {
    if (!function_) [[unlikely]] {
      if (exec.counts_only) return;
      fail("no kernel `{}` on {}", name_, weft::name_of(exec.device().kind));
    }
    function_(exec, args...);
  }

 private:
  const char* name_;
  Function function_ = nullptr;
};

/// What a kernel call costs. `depth` is the number of dependent levels as executed, where a contraction, a softmax or a
/// reduction is one level (Vaswani et al. 2017, table 1); `min_depth` the least that the mathematics allows.
struct Cost {
  double flops = 0;
  double bytes = 0;
  double depth = 1;
  double min_depth = 1;
};

/// Whether a kernel replaces what its gradient output holds or adds to it.
enum class Write : bool { overwrite, add };

}  // namespace weft
