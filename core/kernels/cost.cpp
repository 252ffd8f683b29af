#include <bit>

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

Cost relative_attention_cost(double pairs, std::int64_t head_dim, double bytes) {
  return {6 * pairs * static_cast<double>(head_dim), bytes, 3, 3};
}

Cost recurrent_cost(RecurrentCell cell, std::int64_t batch, std::int64_t steps, std::int64_t units, std::int64_t hidden,
                    DType dtype) {
  const auto g = static_cast<double>(gates_of(cell)), b = static_cast<double>(batch), t = static_cast<double>(steps);
  const auto u = static_cast<double>(units), h = static_cast<double>(hidden);
  const auto element = static_cast<double>(size_of(dtype));
  // Gates in and out, h and (for the LSTM) c out, the weight once; activations count 10 FLOPs a gate.
  const double cells = cell == RecurrentCell::lstm ? 4 : 0;
  return {2 * b * t * g * u * h + 10 * b * t * g * u, b * t * u * ((2 * g + 1) * element + cells) + g * u * h * element,
          t, t};
}

Cost recurrent_backward_cost(RecurrentCell cell, std::int64_t batch, std::int64_t steps, std::int64_t units,
                             std::int64_t hidden, DType dtype) {
  Cost cost = recurrent_cost(cell, batch, steps, units, hidden, dtype);
  cost.min_depth = 1 + std::bit_width(static_cast<std::uint64_t>(steps > 0 ? steps - 1 : 0));
  return cost;
}

}  // namespace weft
