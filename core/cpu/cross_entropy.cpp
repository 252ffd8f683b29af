#include "core/cpu/cross_entropy.hpp"

#include <algorithm>
#include <type_traits>

#include "core/cpu/matrix_view.hpp"
#include "core/cpu/multiplier.hpp"

namespace weft::cpu {

namespace {

// The weight and its gradient are read and written once a chunk, so a chunk needs enough rows to hide that.
constexpr std::int64_t chunk_logits = (104 << 20) / 4;
constexpr std::int64_t least_rows = 128;

std::int64_t chunk_rows(std::int64_t rows, std::int64_t vocabulary, std::size_t most_bytes) {
  const auto asked = static_cast<std::int64_t>(most_bytes / sizeof(float)) / vocabulary;
  const std::int64_t at_most = most_bytes > 0 ? std::max<std::int64_t>(1, asked)
                                              : std::clamp<std::int64_t>(chunk_logits / vocabulary, least_rows, 4096);
  const std::int64_t chunks = (rows + at_most - 1) / at_most;
  return (rows + chunks - 1) / chunks;
}

/// What a chunk of rows is multiplied with.
struct ChunkProducts {
  Product logits, hidden, weight;
};

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
  if (dh) check_same_shape("linear.cross_entropy: dh", Matrix(dh), hidden);
  if (dw) check_weight("linear.cross_entropy", Matrix(dw), vocabulary, dim);
  const bool backward = static_cast<bool>(dh);
  if (rows == 0) {
    if (backward && dw && write == Write::overwrite) zero(Matrix(dw));
    return;
  }

  const Multiplier multiplier(kernels, exec);
  const int threads = exec.threads();
  const Round round = elem_of(hidden) == Elem::bf16 ? Round::bf16 : Round::none;
  const std::int64_t element = elem_of(hidden) == Elem::bf16 ? 2 : 4;
  const std::int64_t chunk = chunk_rows(rows, vocabulary, exec.logits_bytes);
  const std::int64_t logits_stride = (vocabulary + 15) / 16 * 16;
  // oneDNN wants the logits' gradient in bf16.
  const bool narrow = backward && multiplier.dnnl() && elem_of(hidden) == Elem::bf16;
  const std::size_t logits_bytes = static_cast<std::size_t>(chunk * logits_stride) * sizeof(float);
  const std::size_t narrow_bytes = narrow ? static_cast<std::size_t>(chunk * logits_stride) * sizeof(bf16) : 0;

  float* logits = nullptr;
  void* narrow_logits = nullptr;
  const auto products_of = [&](std::int64_t begin) {
    const std::int64_t count = std::min(chunk, rows - begin);
    const auto row_of = [&](auto* data, std::int64_t stride) {
      using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(data)>>, const char, char>;
      return static_cast<Byte*>(data) + begin * stride * element;
    };
    ChunkProducts products;
    const LeftOperand x{row_of(hidden.data, hidden.stride), elem_of(hidden), hidden.stride};
    products.logits = {{count, vocabulary, dim},
                       x,
                       {weight.data, Elem::f32, weight.stride, Orientation::transposed, round},
                       {logits, Elem::f32, logits_stride},
                       &w};
    if (!backward) return products;
    LeftOperand dlogits{logits, Elem::f32, logits_stride};
    if (narrow) dlogits = {narrow_logits, Elem::bf16, vocabulary};
    const Matrix dhidden(dh);
    products.hidden = {{count, dim, vocabulary},
                       dlogits,
                       {weight.data, Elem::f32, weight.stride, Orientation::straight, round},
                       {row_of(dhidden.data, dhidden.stride), elem_of(hidden), dhidden.stride},
                       &w};
    if (!dw) return products;
    const Matrix dweight(dw);
    dlogits.layout = TileLayout::by_col;
    products.weight = {{vocabulary, dim, count},
                       dlogits,
                       {x.data, x.elem, x.stride},
                       {dweight.data, Elem::f32, dweight.stride},
                       nullptr};
    if (begin > 0 || write == Write::add) {
      products.weight.output.residual = dweight.data;
      products.weight.output.residual_stride = dweight.stride;
    }
    return products;
  };

  std::size_t product_bytes = 0;
  for (const std::int64_t begin : {std::int64_t{0}, (rows - 1) / chunk * chunk}) {
    const ChunkProducts products = products_of(begin);
    product_bytes = std::max(product_bytes, multiplier.scratch(products.logits));
    if (backward) product_bytes = std::max(product_bytes, multiplier.scratch(products.hidden));
    if (backward && dw) product_bytes = std::max(product_bytes, multiplier.scratch(products.weight));
  }
  logits = static_cast<float*>(exec.scratch(logits_bytes + narrow_bytes + product_bytes));
  narrow_logits = reinterpret_cast<char*>(logits) + logits_bytes;
  void* scratch = static_cast<char*>(narrow_logits) + narrow_bytes;

  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const ChunkProducts products = products_of(begin);
    multiplier.run(products.logits, scratch);
    const std::int64_t count = products.logits.shape.m;
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
    if (narrow) multiplier.dnnl()->narrow(logits, logits_stride, count, vocabulary, narrow_logits, threads);
    multiplier.run(products.hidden, scratch);
    if (dw) multiplier.run(products.weight, scratch);
  }
}

}  // namespace weft::cpu
