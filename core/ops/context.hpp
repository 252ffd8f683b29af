// What every differentiable operation takes first.
#pragma once
#include "core/autograd/tape.hpp"
#include "core/kernels/table.hpp"

namespace weft {

/// What of each block backward computes again from its input, so that it need not be kept: nothing, the sequence mixer, or all.
enum class Recompute : std::uint8_t { none, attention, block };

struct OpContext {
  ExecContext& exec;
  Tape* tape = nullptr;        ///< null: nothing is recorded and no gradients are made
  DType compute = DType::f32;  ///< dtype of activations
  TokenMap tokens;             ///< where the local token rows stand in the global batch
  /// One key a dropout site, in device memory, drawn from (seed, step, site); null turns dropout off.
  const PhiloxKey* dropout_keys = nullptr;
  std::int64_t rows = 0;  ///< token rows of the micro-batch here; models set it
  RowShare stream = {};   ///< which of them the residual stream holds here; models set it
  Recompute recompute = Recompute::none;

  /// The same for operations on rows of the residual stream.
  OpContext on_stream() const {
    OpContext cx = *this;
    cx.tokens.share = stream;
    return cx;
  }
  bool recording() const { return tape != nullptr; }
  const KernelTable& kernels() const { return exec.kernels(); }
  Tensor empty(Shape shape, DType dtype) const {
    return Tensor::empty(exec.memory(), shape, dtype, MemoryUse::activation);
  }
  /// Dropout of activations [.., cols] at a site; none when evaluating or p is 0.
  DropoutSpec dropout(float p, int site, std::int64_t cols) const {
    if (p == 0 || !dropout_keys) return {};
    return {p, dropout_keys + site, tokens, cols, 0};
  }
};

}  // namespace weft
