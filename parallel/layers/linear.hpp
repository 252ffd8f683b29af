// Linear layers sharded over the tensor-parallel ranks (section 3 of Shoeybi et al. 2019). In a group of one they are
// nn::Linear.
#pragma once
#include <optional>

#include "core/nn/layers.hpp"
#include "parallel/layers/tensor_group.hpp"

namespace weft {

/// Rows of a column-parallel weight that a rank holds; see Box.
struct WeightRows {
  Range rows;
  int copies = 1;
  int copy = 0;
};

/// Initial values; no bias where it has none.
struct LinearInit {
  Init weight;
  std::optional<Init> bias;
};

/// The stream → this rank's columns of x·Wᵀ + b, all rows. weight [out, in], of which this rank holds the rows in `held`, in
/// that order (fused projections have several). Forward gathers the stream where it is shared out; backward sums the
/// ranks' gradients of x, while the weight's is computed.
class ColumnLinear {
 public:
  ColumnLinear(const BuildContext& build, std::int64_t in, std::int64_t out, const std::vector<WeightRows>& held,
               const LinearInit& init);
  ColumnLinear(const BuildContext& build, std::int64_t in, std::int64_t out, const std::vector<WeightRows>& held,
               nn::LinearOptions options);
  /// The stream → [B, T, columns held].
  Tensor forward(OpContext& cx, const Tensor& x, Epilogue epilogue = Epilogue::none) const;

 private:
  TensorGroup group_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;
};

/// This rank's columns of x [B, T, held] → the stream: Σ over ranks of x·Wᵀ, plus b. weight [out, in], of which this rank
/// holds the columns `held`. Each chunk of rows is summed while the next one's product is computed.
class RowLinear {
 public:
  RowLinear(const BuildContext& build, std::int64_t in, std::int64_t out, Range held, nn::LinearOptions options);
  Tensor forward(OpContext& cx, const Tensor& x) const;

 private:
  TensorGroup group_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;
};

}  // namespace weft
