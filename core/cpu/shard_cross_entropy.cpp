// Softmax cross-entropy over one shard of a vocabulary; see LinearKernels::shard_logits.
#include "core/cpu/cross_entropy.hpp"

#include <cmath>
#include <limits>

#include "core/cpu/matrix_view.hpp"
#include "core/cpu/multiplier.hpp"

namespace weft::cpu {
namespace {

/// The operands that both steps have.
struct Shard {
  ConstMatrix hidden, weight;
  Matrix logits;
  const std::int32_t* targets;
  std::int64_t begin, rows, vocabulary;  ///< vocabulary: rows of this shard

  Shard(const char* kernel, const View& h, const WeightRef& w, const View& targets_, const VocabShard& shard,
        const MutView& logits_)
      : hidden(h), weight(w.value), logits(logits_), targets(vector_of<std::int32_t>(kernel, targets_, hidden.rows)),
        begin(shard.begin), rows(hidden.rows), vocabulary(weight.rows) {
    check_weight(kernel, weight, vocabulary, hidden.cols);
    WEFT_CHECK(vocabulary > 0, "{}: a shard without tokens", kernel);
    WEFT_CHECK(logits.dtype == DType::f32 && logits.rows == rows && logits.cols == vocabulary,
               "{}: logits are {} [{}, {}], expected f32 [{}, {}]", kernel, name_of(logits.dtype), logits.rows,
               logits.cols, rows, vocabulary);
    for (std::int64_t r = 0; r < rows; ++r)
      WEFT_CHECK(targets[r] < shard.size, "{}: target {} of row {}, vocabulary {}", kernel, targets[r], r, shard.size);
  }

  bool holds(std::int64_t row) const { return targets[row] >= begin && targets[row] < begin + vocabulary; }
  float* row(std::int64_t r) const { return static_cast<float*>(logits.data) + r * logits.stride; }
};

void run(const Multiplier& multiplier, const Product& product, ExecContext& exec) {
  multiplier.run(product, exec.scratch(multiplier.scratch(product)));
}

Round rounding(const ConstMatrix& hidden) { return hidden.dtype == DType::bf16 ? Round::bf16 : Round::none; }

}  // namespace

void shard_logits(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                  VocabShard shard, MutView logits, MutView stats) {
  const Shard s("linear.shard_logits", h, w, targets, shard, logits);
  auto* lse = vector_of<float>("linear.shard_logits: stats", stats, 2 * s.rows);
  float* at_target = lse + s.rows;
  if (s.rows == 0) return;
  const Multiplier multiplier(kernels, exec);
  run(multiplier,
      {{s.rows, s.vocabulary, s.hidden.cols},
       {s.hidden.data, elem_of(s.hidden), s.hidden.stride},
       {s.weight.data, Elem::f32, s.weight.stride, Orientation::transposed, rounding(s.hidden)},
       {s.logits.data, Elem::f32, s.logits.stride},
       &w},
      exec);
#pragma omp parallel for num_threads(exec.threads()) schedule(static)
  for (std::int64_t r = 0; r < s.rows; ++r) {
    lse[r] = kernels.lse_row(s.row(r), s.vocabulary);
    at_target[r] = s.holds(r) ? s.row(r)[s.targets[r] - s.begin] : 0.0f;
  }
}

void shard_cross_entropy(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                         View weights, float scale, VocabShard shard, View stats, Write write, MutView logits,
                         MutView loss, MutView dh, MutView dw) {
  const char* name = "linear.shard_cross_entropy";
  const Shard s(name, h, w, targets, shard, logits);
  const auto* row_weight = vector_of<float>(name, weights, s.rows);
  auto* row_loss = vector_of<float>(name, loss, s.rows);
  const bool backward = static_cast<bool>(dh);
  if (dh) check_same_shape("linear.shard_cross_entropy: dh", Matrix(dh), s.hidden);
  if (dw) check_weight(name, Matrix(dw), s.vocabulary, s.hidden.cols);
  if (s.rows == 0) {
    if (dw && write == Write::overwrite) zero(Matrix(dw));
    return;
  }
  const std::int64_t shards = stats.numel() / (2 * s.rows);
  const auto* all = vector_of<float>(name, stats, shards * 2 * s.rows);
#pragma omp parallel for num_threads(exec.threads()) schedule(static)
  for (std::int64_t r = 0; r < s.rows; ++r) {
    const bool counts = s.targets[r] >= 0 && row_weight[r] != 0;
    double top = -std::numeric_limits<double>::infinity(), sum = 0, at_target = 0;
    for (std::int64_t i = 0; i < shards; ++i) {
      top = std::max<double>(top, all[2 * i * s.rows + r]);
      at_target += all[(2 * i + 1) * s.rows + r];
    }
    for (std::int64_t i = 0; i < shards; ++i) sum += std::exp(all[2 * i * s.rows + r] - top);
    const double lse = top + std::log(sum);
    row_loss[r] = counts ? static_cast<float>(lse - at_target) : 0.0f;
    if (!backward) continue;
    if (counts)
      kernels.gradient_row(s.row(r), s.vocabulary, static_cast<float>(lse), s.targets[r] - s.begin,
                           scale * row_weight[r]);
    else
      std::fill_n(s.row(r), s.vocabulary, 0.0f);
  }
  if (!backward) return;

  const Multiplier multiplier(kernels, exec);
  LeftOperand dlogits{s.logits.data, Elem::f32, s.logits.stride};
  // oneDNN wants the logits' gradient in bf16.
  const bool narrow = multiplier.dnnl() && elem_of(s.hidden) == Elem::bf16;
  const std::size_t narrow_bytes =
      narrow ? (static_cast<std::size_t>(s.rows * s.vocabulary) * sizeof(bf16) + 63) / 64 * 64 : 0;
  const Matrix dhidden(dh);
  const auto products = [&](const LeftOperand& left) {
    Product hidden{{s.rows, s.hidden.cols, s.vocabulary},
                   left,
                   {s.weight.data, Elem::f32, s.weight.stride, Orientation::straight, rounding(s.hidden)},
                   {dhidden.data, elem_of(dhidden), dhidden.stride},
                   &w};
    Product weight{};
    if (dw) {
      const Matrix dweight(dw);
      LeftOperand by_col = left;
      by_col.layout = TileLayout::by_col;
      weight = {{s.vocabulary, s.hidden.cols, s.rows},
                by_col,
                {s.hidden.data, elem_of(s.hidden), s.hidden.stride},
                {dweight.data, Elem::f32, dweight.stride},
                nullptr};
      if (write == Write::add) {
        weight.output.residual = dweight.data;
        weight.output.residual_stride = dweight.stride;
      }
    }
    return std::pair{hidden, weight};
  };
  if (narrow) dlogits = {nullptr, Elem::bf16, s.vocabulary};
  const auto sized = products(dlogits);
  const std::size_t bytes =
      std::max(multiplier.scratch(sized.first), dw ? multiplier.scratch(sized.second) : std::size_t{0});
  auto* scratch = static_cast<char*>(exec.scratch(narrow_bytes + bytes));
  if (narrow) {
    multiplier.dnnl()->narrow(static_cast<float*>(s.logits.data), s.logits.stride, s.rows, s.vocabulary, scratch,
                              exec.threads());
    dlogits.data = scratch;
  }
  const auto [hidden, weight] = products(dlogits);
  multiplier.run(hidden, scratch + narrow_bytes);
  if (dw) multiplier.run(weight, scratch + narrow_bytes);
}

}  // namespace weft::cpu
