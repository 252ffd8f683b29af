// Tensor: a value handle on shared storage, with its place on a tape if it takes part in autograd.
#pragma once
#include <cstdint>
#include <memory>
#include <utility>

#include "core/base/memory.hpp"
#include "core/tensor/view.hpp"

namespace weft {

/// One allocation, returned to its allocator when the last handle goes.
class Storage {
 public:
  Storage(Allocator& memory, std::size_t bytes, MemoryUse use)
      : memory_(&memory), bytes_(bytes), use_(use), data_(memory.allocate(bytes, use)) {}
  ~Storage() { memory_->deallocate(data_, bytes_, use_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  DeviceId device() const { return memory_->device(); }

 private:
  Allocator* memory_;
  std::size_t bytes_;
  MemoryUse use_;
  void* data_;
};

using ValueId = std::uint32_t;
inline constexpr ValueId no_value = ~ValueId{0};

/// Row-major. A default-constructed tensor is undefined. Copies share storage.
class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised elements.
  static Tensor empty(Allocator& memory, Shape shape, DType dtype, MemoryUse use);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  DeviceId device() const { return storage_->device(); }
  std::int64_t numel() const { return shape_.numel(); }

  /// Empty views for an undefined tensor.
  View view() const;
  MutView mut() const;

  /// The same elements under another shape of equal count; keeps the place on the tape.
  Tensor reshaped(Shape shape) const;
  /// Elements [begin, end) of the first dim; not recorded on the tape.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  /// `shape` elements from element `offset` of this contiguous tensor; not recorded on the tape.
  Tensor window(std::int64_t offset, Shape shape) const;
  /// The same elements, off the tape.
  Tensor detached() const;
  /// Whether this handle alone owns the storage, so that it may be overwritten.
  bool unique() const { return storage_.use_count() == 1; }
  std::shared_ptr<void> keep_alive() const { return storage_; }

  ValueId value() const { return value_; }
  bool on_tape() const { return value_ != no_value; }
  void set_value(ValueId value) { value_ = value; }

 private:
  std::shared_ptr<Storage> storage_;
  std::int64_t offset_bytes_ = 0;
  Shape shape_;
  DType dtype_ = DType::f32;
  ValueId value_ = no_value;
};

}  // namespace weft
