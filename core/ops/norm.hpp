// Norms fused with the residual sum.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

struct Normed {
  Tensor sum;  ///< x + dropout(branch): the residual stream
  Tensor y;    ///< norm(sum)·gain + bias
};

struct NormParameters {
  NormKind kind = NormKind::layer;
  Parameter* gain = nullptr;
  Parameter* bias = nullptr;  ///< null for RMS norm
  float eps = 1e-5f;
};

struct ResidualDropout {
  float p = 0;
  int site = 0;
};

/// x, branch [.., D]; with an undefined branch `sum` is x itself.
Normed add_norm(OpContext& cx, const Tensor& x, const Tensor& branch, const NormParameters& norm,
                ResidualDropout dropout = {});

/// y = dropout(x).
Tensor dropout(OpContext& cx, const Tensor& x, float p, int site);

/// x + alpha·a, alpha a parameter of one element.
Tensor scaled_add(OpContext& cx, const Tensor& x, const Tensor& a, Parameter& alpha);

/// a + b.
Tensor add(OpContext& cx, const Tensor& a, const Tensor& b);

}  // namespace weft::ops
