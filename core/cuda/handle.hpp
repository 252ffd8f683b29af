// Handles of C libraries, destroyed once.
#pragma once
#include <utility>

namespace weft::cuda {

/// Owns `value` and ends it with destroy(value); T{} is no handle. Destroy is a function pointer, or a type of its own.
template <class T, class Destroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T value, Destroy destroy = {}) : value_(value), destroy_(destroy) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, T{})), destroy_(other.destroy_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this == &other) return *this;
    reset();
    value_ = std::exchange(other.value_, T{});
    destroy_ = other.destroy_;
    return *this;
  }

  T get() const { return value_; }
  explicit operator bool() const { return value_ != T{}; }
  void reset() {
    if (value_ != T{}) destroy_(std::exchange(value_, T{}));
  }

 private:
  T value_{};
  Destroy destroy_{};
};

}  // namespace weft::cuda
