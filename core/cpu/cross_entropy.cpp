#include "core/cpu/cross_entropy.hpp"

#include <algorithm>

#include "core/cpu/matrix_view.hpp"

namespace weft::cpu {

namespace {

// The weight and its gradient are read and written once a chunk, so a chunk needs enough rows to hide that.
constexpr std::int64_t chunk_logits = (64 << 20) / 4;
constexpr std::int64_t least_rows = 128;

std::int64_t chunk_rows(std::int64_t rows, std::int64_t vocabulary) {
  const std::int64_t at_most = std::clamp<std::int64_t>(chunk_logits / vocabulary, least_rows, 4096);
  const std::int64_t chunks = (rows + at_most - 1) / at_most;
  return (rows + chunks - 1) / chunks;
}

}  // namespace

void cross_entropy(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                   View weights, float scale, Write write, MutView loss, MutView dh, MutView dw) {
  const ConstMatrix hidden(h), weight(w.value);
  const std::int64_t rows = hidden.rows, dim = hidden.cols, vocabulary = weight.rows;
  check_weight("linear.cross_entropy", weight, vocabulary, dim);
  const auto* target = vector_of<std::int32_t>("linear.cross_entropy: targets", targets, rows);
  const auto* row_weight = vector_of<float>("linear.cross_entropy: weights", weights, rows);
  auto* row_loss = vector_of<float>("linear.cross_entropy: loss", loss, rows);
  for (std::int64_t r = 0; r < rows; ++r)
    WEFT_CHECK(target[r] < vocabulary, "linear.cross_entropy: target {} of row {}, vocabulary {}", target[r], r,
               vocabulary);
  if (dh) check_like("linear.cross_entropy: dh", Matrix(dh), hidden);
  if (dw) check_weight("linear.cross_entropy", Matrix(dw), vocabulary, dim);
  const bool backward = static_cast<bool>(dh);
  if (rows == 0) {
    if (backward && dw && write == Write::overwrite) zero(Matrix(dw));
    return;
  }

  const int threads = exec.threads();
  const std::int64_t chunk = chunk_rows(rows, vocabulary);
  const Round round = hidden.elem == Elem::bf16 ? Round::bf16 : Round::none;
  const ProductShape shapes[] = {{chunk, vocabulary, dim}, {chunk, dim, vocabulary}, {vocabulary, dim, chunk}};
  ProductOutput hidden_gradient{nullptr, hidden.elem, dim};
  std::size_t product_bytes = product_scratch(kernels, shapes[0], {}, threads);
  if (backward) {
    product_bytes = std::max({product_bytes, product_scratch(kernels, shapes[1], hidden_gradient, threads),
                              product_scratch(kernels, shapes[2], {}, threads)});
  }
  const std::int64_t logits_stride = (vocabulary + 15) / 16 * 16;
  const std::size_t logits_bytes = static_cast<std::size_t>(chunk * logits_stride) * sizeof(float);
  auto* logits = static_cast<float*>(exec.scratch(logits_bytes + product_bytes));
  void* scratch = reinterpret_cast<char*>(logits) + logits_bytes;

  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    const LeftOperand x{static_cast<const char*>(hidden.data) + begin * hidden.stride * (round == Round::bf16 ? 2 : 4),
                        hidden.elem, hidden.stride, TileLayout::by_row};
    multiply(kernels, {count, vocabulary, dim}, x,
             {weight.data, Elem::f32, weight.stride, Orientation::transposed, round},
             {logits, Elem::f32, logits_stride}, threads, scratch);

#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t r = begin + i;
      float* row = logits + i * logits_stride;
      const bool counts = target[r] >= 0 && row_weight[r] != 0;
      const float factor = backward && counts ? scale * row_weight[r] : 0.0f;
      row_loss[r] = counts ? kernels.loss_row(row, vocabulary, target[r], factor) : 0.0f;
      if (backward && factor == 0) std::fill_n(row, vocabulary, 0.0f);
    }
    if (!backward) continue;

    const Matrix dhidden(dh);
    hidden_gradient.stride = dhidden.stride;
    hidden_gradient.out = static_cast<char*>(dhidden.data) + begin * dhidden.stride * (round == Round::bf16 ? 2 : 4);
    multiply(kernels, {count, dim, vocabulary}, {logits, Elem::f32, logits_stride, TileLayout::by_row},
             {weight.data, Elem::f32, weight.stride, Orientation::straight, round}, hidden_gradient, threads, scratch);
    if (!dw) continue;
    const Matrix dweight(dw);
    ProductOutput weight_gradient{dweight.data, Elem::f32, dweight.stride};
    if (begin > 0 || write == Write::add) {
      weight_gradient.residual = dweight.data;
      weight_gradient.residual_stride = dweight.stride;
    }
    multiply(kernels, {vocabulary, dim, count}, {logits, Elem::f32, logits_stride, TileLayout::by_col},
             {x.data, x.elem, x.stride, Orientation::straight, Round::none}, weight_gradient, threads, scratch);
  }
}

}  // namespace weft::cpu
