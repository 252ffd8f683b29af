// A trainable tensor: f32 master, f32 gradient inside bucket storage, and the hooks that sharding hangs on.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/kernels/linear.hpp"
#include "core/tensor/slice.hpp"
#include "core/tensor/tensor.hpp"

namespace weft {

/// Initial values; element i of the logical tensor depends on (seed, parameter name, i) alone.
struct Init {
  enum class Kind : std::uint8_t { constant, normal, uniform, ones_in } kind = Kind::constant;
  double scale = 0;  ///< the constant, the standard deviation, or the bound of U(−scale, scale)
  std::int64_t begin = 0, end = 0;

  static Init zeros() { return {Kind::constant, 0}; }
  static Init ones() { return {Kind::constant, 1}; }
  static Init normal(double deviation) { return {Kind::normal, deviation}; }
  static Init uniform(double bound) { return {Kind::uniform, bound}; }
  /// 1 for elements [begin, end) of the logical tensor, 0 for the others.
  static Init ones_in(std::int64_t begin, std::int64_t end) { return {Kind::ones_in, 1, begin, end}; }
};

/// What an operation runs for. `recomputed` is a checkpointed segment's forward once more: in the cost ledger alone, hooks see
/// `forward`.
enum class Pass : std::uint8_t { forward, backward, recomputed };

class Parameter {
 public:
  Parameter(std::string name, Slice slice, Init init)
      : name_(std::move(name)), slice_(std::move(slice)), shape_(slice_.local_shape()), init_(init) {}
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const std::string& name() const { return name_; }
  const Slice& slice() const { return slice_; }
  const Init& init() const { return init_; }
  /// Of value and gradient here, whether they are in memory or not.
  const Shape& shape() const { return shape_; }
  /// Weight decay applies to tensors of two or more dims.
  bool decayed() const { return slice_.global_shape.rank() >= 2; }

  /// f32 master, in the slice's local shape; undefined between uses where ranks share it out. Whoever changes it calls
  /// `changed`.
  const Tensor& value() const { return value_; }
  void set_value(Tensor value) {
    value_ = std::move(value);
    changed();
  }
  void changed() { ++version_; }
  /// Gives the value and its packed copies back.
  void drop_value() {
    value_ = {};
    pack_.reset();
    changed();
  }
  /// For products: the master with its packed copies.
  WeightRef weight() { return {value_.view(), &pack_, version_}; }

  /// f32 gradient sum of the step, in the slice's local shape; undefined before its first write where ranks share it out.
  const Tensor& grad() const { return grad_; }
  void set_grad(Tensor grad) { grad_ = std::move(grad); }
  /// Starts a step: the next write to the gradient replaces what it holds.
  void begin_step() {
    grad_written_ = false;
    ready_ = false;
    pending_uses_ = 0;
  }
  bool grad_written() const { return grad_written_; }
  /// How the next write to the gradient must go; the caller then takes `grad` and writes all of it.
  Write next_grad_write() {
    if (!grad_.defined() && make_grad) make_grad(*this);
    return std::exchange(grad_written_, true) ? Write::add : Write::overwrite;
  }

  /// Uses recorded in the step's last micro-batch whose backward has not run yet.
  void count_use() { ++pending_uses_; }
  /// Returns true when the last use is done.
  bool use_done() { return --pending_uses_ == 0; }

  /// Whether the step's gradient has been declared complete.
  bool ready() const { return ready_; }
  /// Declares it and fires the hook.
  void declare_ready() {
    ready_ = true;
    if (on_grad_ready) on_grad_ready(*this);
  }

  /// Gives the gradient its memory before the first write (ZeRO-2); may be empty.
  std::function<void(Parameter&)> make_grad;
  /// Around each use in either pass (ZeRO gathers there); may be empty.
  std::function<void(Parameter&, Pass)> before_use, after_use;
  /// Once a step, when the gradient is complete on this rank; may be empty.
  std::function<void(Parameter&)> on_grad_ready;

 private:
  std::string name_;
  Slice slice_;
  Shape shape_;
  Init init_;
  Tensor value_;
  Tensor grad_;
  std::unique_ptr<PackedWeight> pack_;
  std::uint64_t version_ = 0;
  int pending_uses_ = 0;
  bool grad_written_ = false;
  bool ready_ = false;
};

/// Calls a parameter's before_use and after_use around a scope.
class ParameterUse {
 public:
  ParameterUse(Parameter* parameter, Pass pass) : parameter_(parameter), pass_(pass) {
    if (parameter_ && parameter_->before_use) parameter_->before_use(*parameter_, pass_);
  }
  ~ParameterUse() {
    if (parameter_ && parameter_->after_use) parameter_->after_use(*parameter_, pass_);
  }
  ParameterUse(const ParameterUse&) = delete;
  ParameterUse& operator=(const ParameterUse&) = delete;

 private:
  Parameter* parameter_;
  Pass pass_;
};

}  // namespace weft
