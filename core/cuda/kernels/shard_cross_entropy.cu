// Softmax cross-entropy over one shard of a vocabulary; see LinearKernels::shard_logits.
#include <limits>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/device/reduce.hpp"
#include "core/cuda/kernels/linear.hpp"
#include "core/cuda/kernels/weight.hpp"
#include "core/cuda/launch.hpp"
#include "core/cuda/matmul.hpp"
#include "core/cuda/scratch.hpp"

namespace weft::cuda {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A block takes a row of logits [rows, cols].
struct ShardStats {
  static constexpr int threads = 512;
  const float* logits;
  std::int64_t rows, cols;
  const std::int32_t* targets;
  std::int64_t begin, size;  // of the shard's tokens; of the vocabulary
  float* stats;              // [2, rows]

  WEFT_DEVICE void operator()(const Block& block) const {
    const float* row = logits + block.index() * cols;
    float high = -infinity, sum = 0;
    for_block(block, cols, [&](std::int64_t i) {
      const float value = row[i];
      if (value > high) {
        sum *= expf(high - value);
        high = value;
      }
      sum += expf(value - high);
    });
    const float top = reduce_block(block, high, Max{}, block.shared<float>());
    sum = reduce_block(block, sum > 0 ? sum * expf(high - top) : sum, Sum{}, block.shared<float>());
    if (block.thread() != 0) return;
    const std::int64_t target = targets[block.index()], local = target - begin;
    // The host cannot read targets: one beyond the vocabulary makes the loss no number, which the step's check finds.
    float logit = target < size ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    if (local >= 0 && local < cols) logit = row[local];
    stats[block.index()] = top + logf(sum);
    stats[rows + block.index()] = logit;
  }
};

/// A block takes a row: its loss and, where `gradient` is given, the gradient of its logits in T, rows `stride` apart, zeros
/// from `cols` on.
template <class T>
struct ShardLoss {
  static constexpr int threads = 512;
  const float* logits;
  std::int64_t rows, cols, stride;
  const std::int32_t* targets;
  const float* weights;
  float scale;
  std::int64_t begin;
  const float* stats;  // [shards, 2, rows]
  std::int64_t shards;
  float* loss;
  T* gradient;

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t r = block.index(), local = targets[r] - begin;
    const bool counts = targets[r] >= 0 && weights[r] != 0;
    float top = -infinity, sum = 0, logit = 0;
    for (std::int64_t i = 0; i < shards; ++i) {
      const float lse = stats[2 * i * rows + r];
      top = lse > top ? lse : top;
      logit += stats[(2 * i + 1) * rows + r];
    }
    for (std::int64_t i = 0; i < shards; ++i) sum += expf(stats[2 * i * rows + r] - top);
    const float lse = top + logf(sum);
    if (block.thread() == 0) loss[r] = counts ? lse - logit : 0.0f;
    if (!gradient) return;
    const float factor = counts ? scale * weights[r] : 0.0f;
    for_block(block, stride, [&](std::int64_t i) {
      float value = 0;
      if (counts && i < cols) value = factor * expf(logits[r * cols + i] - lse) - (i == local ? factor : 0.0f);
      gradient[r * stride + i] = from_float<T>(value);
    });
  }
};

/// The operands that both steps have.
struct Shard {
  ConstMatrix hidden, master;
  Matrix logits;
  const std::int32_t* targets;
  std::int64_t rows, vocabulary;  // vocabulary: rows of this shard

  Shard(const char* kernel, const View& h, const WeightRef& w, const View& targets_, const VocabShard& shard,
        const MutView& logits_)
      : hidden(h), master(w.value), logits(logits_), targets(vector_of<std::int32_t>(kernel, targets_, hidden.rows)),
        rows(hidden.rows), vocabulary(master.rows) {
    check_weight(kernel, master, vocabulary, hidden.cols);
    WEFT_CHECK(vocabulary > 0 && shard.begin + vocabulary <= shard.size, "{}: tokens [{}, {}) of a vocabulary of {}",
               kernel, shard.begin, shard.begin + vocabulary, shard.size);
    WEFT_CHECK(logits.dtype == DType::f32 && logits.rows == rows && logits.cols == vocabulary &&
                   (rows < 2 || logits.stride == vocabulary),
               "{}: logits are {} [{}, {}], expected f32 [{}, {}]", kernel, name_of(logits.dtype), logits.rows,
               logits.cols, rows, vocabulary);
  }
};

}  // namespace

void shard_logits(ExecContext& exec, View h, WeightRef w, View targets, VocabShard shard, MutView logits,
                  MutView stats) {
  const Shard s("linear.shard_logits", h, w, targets, shard, logits);
  auto* results = vector_of<float>("linear.shard_logits: stats", stats, 2 * s.rows);
  if (s.rows == 0) return;
  ScratchParts parts;
  const std::size_t workspace = parts.add(matmul_workspace(exec)), copy = parts.add(weight_scratch(w, s.hidden.dtype));
  auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
  MatmulArgs product;
  product.workspace = scratch + workspace;
  product.a = s.hidden;
  product.b = weight_for(exec, w, s.hidden.dtype, scratch + copy);
  product.transpose_b = true;
  product.out = s.logits;
  matmul(exec, product);
  const auto* values = static_cast<const float*>(s.logits.data);
  launch(exec, s.rows, ShardStats{values, s.rows, s.vocabulary, s.targets, shard.begin, shard.size, results},
         reduce_bytes<float>);
}

void shard_cross_entropy(ExecContext& exec, View h, WeightRef w, View targets, View weights, float scale,
                         VocabShard shard, View stats, Write write, MutView logits, MutView loss, MutView dh,
                         MutView dw) {
  const char* name = "linear.shard_cross_entropy";
  const Shard s(name, h, w, targets, shard, logits);
  const DType dtype = s.hidden.dtype;
  const auto* row_weight = vector_of<float>(name, weights, s.rows);
  auto* row_loss = vector_of<float>(name, loss, s.rows);
  if (dh) check_same_shape("linear.shard_cross_entropy: dh", Matrix(dh), s.hidden);
  if (dw) check_weight(name, Matrix(dw), s.vocabulary, s.hidden.cols);
  if (s.rows == 0) {
    if (dw && write == Write::overwrite) zero(exec, Matrix(dw));
    return;
  }
  const std::int64_t shards = stats.numel() / (2 * s.rows);
  const auto* all = vector_of<float>(name, stats, shards * 2 * s.rows);
  const std::int64_t stride = padded_outputs(s.vocabulary);
  ScratchParts parts;
  const std::size_t workspace = parts.add(matmul_workspace(exec)), copy = parts.add(weight_scratch(w, dtype));
  const std::size_t gradient = parts.add(dh ? static_cast<std::size_t>(s.rows * stride) * size_of(dtype) : 0);
  auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
  dispatch_float(dtype, [&]<class T>() {
    launch(exec, s.rows,
           ShardLoss<T>{static_cast<const float*>(s.logits.data), s.rows, s.vocabulary, stride, s.targets, row_weight,
                        scale, shard.begin, all, shards, row_loss,
                        dh ? reinterpret_cast<T*>(scratch + gradient) : nullptr});
  });
  if (!dh) return;
  MatmulArgs product;
  product.workspace = scratch + workspace;
  product.b = weight_for(exec, w, dtype, scratch + copy);
  if (dtype == DType::bf16) product.b.rows = stride;
  product.a = {scratch + gradient, dtype, s.rows, product.b.rows, stride};
  product.out = Matrix(dh);
  matmul(exec, product);
  if (!dw) return;
  product.a.cols = s.vocabulary;
  product.transpose_a = true;
  product.b = s.hidden;
  product.out = Matrix(dw);
  if (write == Write::add) product.added = Matrix(dw);
  matmul(exec, product);
}

}  // namespace weft::cuda
