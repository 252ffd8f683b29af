#include "core/cpu/multiplier.hpp"

#include "core/cpu/state.hpp"

namespace weft::cpu {

namespace {

bool few(const Product& job) {
  return job.shape.m <= few_rows && job.a.layout == TileLayout::by_row && job.b.orientation == Orientation::transposed;
}

DnnlProducts* dnnl_of(ExecContext& exec) {
  auto* state = dynamic_cast<CpuState*>(exec.backend.get());
  return state ? state->dnnl() : nullptr;
}

}  // namespace

Multiplier::Multiplier(const MatrixKernels& kernels, ExecContext& exec)
    : kernels_(kernels), exec_(exec), dnnl_(dnnl_of(exec)) {}

std::size_t Multiplier::scratch(const Product& job) const {
  if (dnnl_ && dnnl_->takes(job)) return dnnl_->scratch(job, exec_.threads());
  if (few(job)) return few_rows_scratch(job.shape);
  return product_scratch(kernels_, job.shape, job.a.layout, job.output, exec_.threads());
}

void Multiplier::run(const Product& job, void* scratch) const {
  if (dnnl_ && dnnl_->takes(job)) return dnnl_->run(exec_, job, scratch);
  const auto multiply_by = few(job) ? multiply_few_rows : multiply;
  multiply_by(kernels_, job.shape, job.a, job.b, job.output, exec_.threads(), scratch);
}

}  // namespace weft::cpu
