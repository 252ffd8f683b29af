// The product of one time step of a recurrence with its recurrent weight R [G·U, H], which stays packed and, where it
// fits, in the caches of the cores that read it. U is H, or the part of the units that is here.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "core/cpu/vec/matrix.hpp"
#include "core/cpu/vec/recurrent.hpp"
#include "core/kernels/linear.hpp"

namespace weft::cpu {

struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

/// forward: h⁻[B,H]·Rᵀ, one sum a gate and unit. backward: dgates⁺[B,G·U]·R, one sum a unit of all.
enum class StepDirection : std::uint8_t { forward, backward };

struct StepShape {
  StepDirection direction = StepDirection::forward;
  std::int64_t batch = 0, units = 0, hidden = 0, gates = 0;
  Elem elem = Elem::f32;  ///< of the activations: what R and the left operand are rounded to

  bool operator==(const StepShape&) const = default;
  bool forward() const { return direction == StepDirection::forward; }
  std::int64_t gates_in() const { return forward() ? 1 : gates; }
  std::int64_t gates_out() const { return forward() ? gates : 1; }
  std::int64_t units_in() const { return forward() ? hidden : units; }
  std::int64_t units_out() const { return forward() ? units : hidden; }
};

/// How threads share the steps: rows of the batch, which never meet, by units, which meet after each step. Part
/// p has rows p / unit_parts and units p % unit_parts.
struct StepSplit {
  int row_parts = 1, unit_parts = 1;
  int parts() const { return row_parts * unit_parts; }
};

/// A fixed rule of the shape. R that a core's cache holds is given to each core whole; of a larger one each core keeps
/// its share.
StepSplit split_steps(const StepShape& shape, std::int64_t unit_align, std::int64_t steps, int threads);

/// One sequence's products, of all its parts. Parts may work at the same time.
class StepProduct {
 public:
  StepProduct(const StepShape& shape, std::int64_t unit_align, std::int64_t steps, int threads)
      : shape_(shape), unit_align_(unit_align), split_(split_steps(shape, unit_align, steps, threads)) {}
  virtual ~StepProduct() = default;

  const StepShape& shape() const { return shape_; }
  const StepSplit& split() const { return split_; }
  Range rows_of(int part) const;
  /// Of the sums.
  Range units_of(int part) const;
  /// A part's share of the left operand's units.
  Range units_in_of(int part) const;

  /// Bytes of 64-byte aligned scratch that `start` wants and `run` uses.
  virtual std::size_t scratch_bytes() const = 0;
  /// Packs the weight if its version has moved on, and clears the operands.
  virtual void start(ExecContext& exec, const WeightRef& weight, char* scratch) = 0;

  /// Units that `run` takes at once.
  virtual std::int64_t piece_units() const = 0;
  /// Row groups of a part: rows of the batch whose left operands lie evenly.
  virtual std::int64_t groups(int part) const = 0;
  virtual Range group_rows(int part, std::int64_t group) const = 0;
  /// Where the left operand of a step goes; steps take turns with the two.
  virtual StepOperand operand(int part, std::int64_t group, int turn) const = 0;
  /// Sums of all rows of the part for one piece of its units, valid until its next one; the first row is the part's.
  virtual StepSums run(int part, Range units, int turn) = 0;

 protected:
  StepShape shape_;
  std::int64_t unit_align_;
  StepSplit split_;
};

/// By the vector kernels in f32; bf16 operands are widened.
std::unique_ptr<StepProduct> make_tile_steps(const MatrixKernels& kernels, const StepShape& shape, std::int64_t steps,
                                             int threads);

/// Memory of an allocator.
class StepBuffer {
 public:
  StepBuffer(Allocator& memory, std::size_t bytes)
      : memory_(memory), bytes_(bytes), data_(memory.allocate(bytes, MemoryUse::parameter)) {}
  ~StepBuffer() { memory_.deallocate(data_, bytes_, MemoryUse::parameter); }
  StepBuffer(const StepBuffer&) = delete;
  StepBuffer& operator=(const StepBuffer&) = delete;
  char* data() const { return static_cast<char*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  Allocator& memory_;
  std::size_t bytes_;
  void* data_;
};

/// The packed copy in `weight.pack` if it is one of class Packed that `fits`, or a new one made by `make`.
template <class Packed, class Fits, class Make>
Packed& packed_in(const WeightRef& weight, Fits&& fits, Make&& make) {
  auto* packed = dynamic_cast<Packed*>(weight.pack->get());
  if (packed && fits(*packed)) return *packed;
  weight.pack->reset();
  std::unique_ptr<Packed> made = make();
  packed = made.get();
  *weight.pack = std::move(made);
  return *packed;
}

}  // namespace weft::cpu
