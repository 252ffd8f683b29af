#include "core/nn/layers.hpp"

namespace weft::nn {

Linear::Linear(const Builder& build, std::int64_t in, std::int64_t out, LinearOptions options)
    : weight_(&build.param("weight", Slice::whole({out, in}), Init::normal(options.init_deviation))) {
  if (options.bias) bias_ = &build.param("bias", Slice::whole({out}), Init::zeros());
}

Tensor Linear::forward(OpContext& cx, const Tensor& x, Epilogue epilogue) const {
  return ops::linear(cx, x, *weight_, bias_, epilogue);
}

Norm::Norm(const Builder& build, NormKind kind, const Slice& slice, float eps) {
  parameters_.kind = kind;
  parameters_.eps = eps;
  parameters_.gain = &build.param("weight", slice, Init::ones());
  if (kind == NormKind::layer) parameters_.bias = &build.param("bias", slice, Init::zeros());
}

ops::Normed Norm::forward(OpContext& cx, const Tensor& x, const Tensor& branch, ops::ResidualDropout dropout) const {
  return ops::add_norm(cx, x, branch, parameters_, dropout);
}

}  // namespace weft::nn
