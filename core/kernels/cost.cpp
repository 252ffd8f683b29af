#include "core/kernels/table.hpp"

namespace weft {

Cost linear_cost(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype) {
  const double dm = static_cast<double>(m), dn = static_cast<double>(n), dk = static_cast<double>(k);
  return {2 * dm * dn * dk, (dm * dk + dn * dk + dm * dn) * static_cast<double>(size_of(dtype)), 1, 1};
}

Cost norm_cost(std::int64_t rows, std::int64_t cols, DType dtype) {
  const double count = static_cast<double>(rows) * static_cast<double>(cols);
  return {8 * count, 2 * count * static_cast<double>(size_of(dtype)), 1, 1};
}

Cost elementwise_cost(std::int64_t count, double flops_each, double bytes_each) {
  return {static_cast<double>(count) * flops_each, static_cast<double>(count) * bytes_each, 1, 1};
}

Cost embedding_cost(std::int64_t rows, std::int64_t cols, DType dtype) {
  const double count = static_cast<double>(rows) * static_cast<double>(cols);
  return {count, count * static_cast<double>(8 + size_of(dtype)), 1, 1};
}

Cost attention_cost(double pairs, std::int64_t head_dim, double bytes) {
  // Two products (QKᵀ and PV) of 2·hd each a pair; scores, softmax and the weighted sum are three dependent levels.
  return {4 * pairs * static_cast<double>(head_dim), bytes, 3, 3};
}

}  // namespace weft
