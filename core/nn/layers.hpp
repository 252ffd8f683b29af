// Layers of one device.
#pragma once
#include "core/nn/parameter_store.hpp"
#include "core/ops/embedding.hpp"
#include "core/ops/linear.hpp"
#include "core/ops/norm.hpp"

namespace weft::nn {

struct LinearOptions {
  bool bias = true;
  double init_deviation = 0.02;
};

/// weight [out, in], bias [out].
class Linear {
 public:
  Linear(const Builder& build, std::int64_t in, std::int64_t out, LinearOptions options);
  Tensor forward(OpContext& cx, const Tensor& x, Epilogue epilogue = Epilogue::none) const;

 private:
  Parameter* weight_;
  Parameter* bias_ = nullptr;
};

/// Layer norm (weight, bias) or RMS norm (weight), with the residual sum before it.
class Norm {
 public:
  Norm(const Builder& build, NormKind kind, std::int64_t width, float eps)
      : Norm(build, kind, Slice::whole({width}), eps) {}
  /// `slice`: of the gain and the bias.
  Norm(const Builder& build, NormKind kind, const Slice& slice, float eps);
  ops::Normed forward(OpContext& cx, const Tensor& x, const Tensor& branch, ops::ResidualDropout dropout = {}) const;

 private:
  ops::NormParameters parameters_;
};

}  // namespace weft::nn
