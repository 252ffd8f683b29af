// Softmax cross-entropy of logits that are made, used and overwritten by their gradient in chunks of rows.
#include <algorithm>
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

/// A block takes a row of logits: the loss, and with `backward` the loss's gradient in the logits' place. Rows are
/// `stride` apart, a multiple of the pack; the gradient's columns from `cols` on are zeros.
template <class T>
struct LossRows {
  static constexpr int threads = 512;
  static constexpr int width = pack_width<T>;
  static constexpr float infinity = std::numeric_limits<float>::infinity();
  T* logits;
  std::int64_t cols, stride;
  const std::int32_t* targets;
  const float* weights;
  float scale;
  float* loss;
  bool backward;

  WEFT_DEVICE void operator()(const Block& block) const {
    T* row = logits + block.index() * stride;
    const std::int64_t target = targets[block.index()];
    const float weight = weights[block.index()];
    if (target < 0 || weight == 0) {
      if (block.thread() == 0) loss[block.index()] = 0;
      if (backward) zero_row(block, row);
      return;
    }
    // The host cannot read targets: one beyond the vocabulary makes the loss no number, which the step's check finds.
    const float logit = target < cols ? to_float(row[target]) : std::numeric_limits<float>::quiet_NaN();

    float high = -infinity, sum = 0;
    for_block(block, ceil_div(cols, width), [&](std::int64_t i) {
      const auto pack = load_pack<width>(row + i * width);
      float values[width], top = high;
      for (int k = 0; k < width; ++k) {
        values[k] = i * width + k < cols ? to_float(pack.at[k]) : -infinity;
        top = values[k] > top ? values[k] : top;
      }
      if (top > high) sum *= expf(high - top);
      high = top;
      for (int k = 0; k < width; ++k) sum += expf(values[k] - high);
    });
    const float top = reduce_block(block, high, Max{}, block.shared<float>());
    sum = reduce_block(block, sum > 0 ? sum * expf(high - top) : sum, Sum{}, block.shared<float>());
    if (block.thread() == 0) loss[block.index()] = top + logf(sum) - logit;
    if (backward) replace(block, row, target, top, scale * weight, scale * weight / sum);
  }

  WEFT_DEVICE void replace(const Block& block, T* row, std::int64_t target, float top, float factor,
                           float inverse) const {
    for_block(block, stride / width, [&](std::int64_t i) {
      auto pack = load_pack<width>(row + i * width);
      for (int k = 0; k < width; ++k) {
        const std::int64_t col = i * width + k;
        const float value = expf(to_float(pack.at[k]) - top) * inverse - (col == target ? factor : 0.0f);
        pack.at[k] = from_float<T>(col < cols ? value : 0.0f);
      }
      store_pack(row + i * width, pack);
    });
  }

  WEFT_DEVICE void zero_row(const Block& block, T* row) const {
    for_block(block, stride / width, [&](std::int64_t i) { store_pack(row + i * width, Pack<T, width>{}); });
  }
};

// The weight's gradient is read and written once a chunk, so a chunk needs enough rows to hide that.
constexpr std::int64_t chunk_bytes = std::int64_t{512} << 20;
constexpr std::int64_t least_rows = 1024, row_step = 128;

std::int64_t chunk_rows(std::int64_t rows, std::int64_t row_bytes, std::size_t most_bytes) {
  if (most_bytes > 0) return std::clamp<std::int64_t>(static_cast<std::int64_t>(most_bytes) / row_bytes, 1, rows);
  const std::int64_t at_most = std::max(least_rows, chunk_bytes / row_bytes / row_step * row_step);
  const std::int64_t chunks = ceil_div(rows, at_most);
  return std::min(rows, ceil_div(ceil_div(rows, chunks), row_step) * row_step);
}

/// The operands of all chunks.
struct Problem {
  ConstMatrix hidden, weight;
  std::int64_t vocabulary;
  const std::int32_t* targets;
  const float* weights;
  float scale;
  bool add;
  float* loss;
  Matrix dhidden, dweight;  ///< empty: no gradient
};

template <class T>
void run_chunk(ExecContext& exec, const Problem& problem, std::int64_t begin, std::int64_t count, const Matrix& logits,
               void* workspace) {
  MatmulArgs product;
  product.workspace = workspace;
  product.a = problem.hidden.slice(begin, count);
  product.b = problem.weight;
  product.transpose_b = true;
  product.out = logits;
  matmul(exec, product);

  const LossRows<T> rows{
      static_cast<T*>(logits.data), problem.vocabulary, logits.stride,        problem.targets + begin,
      problem.weights + begin,      problem.scale,      problem.loss + begin, static_cast<bool>(problem.dhidden)};
  launch(exec, count, rows, reduce_bytes<float>);
  if (!problem.dhidden) return;

  product.a = logits;
  product.transpose_b = false;
  product.out = problem.dhidden.slice(begin, count);
  matmul(exec, product);
  if (!problem.dweight) return;

  product.a.cols = problem.vocabulary;
  product.transpose_a = true;
  product.b = problem.hidden.slice(begin, count);
  product.out = problem.dweight;
  if (begin > 0 || problem.add) product.added = problem.dweight;
  matmul(exec, product);
}

}  // namespace

void cross_entropy(ExecContext& exec, View h, WeightRef w, View targets, View weights, float scale, Write write,
                   MutView loss, MutView dh, MutView dw) {
  Problem problem;
  problem.hidden = ConstMatrix(h);
  const ConstMatrix master(w.value);
  const std::int64_t rows = problem.hidden.rows;
  problem.vocabulary = master.rows;
  check_weight("linear.cross_entropy", master, master.rows, problem.hidden.cols);
  problem.targets = vector_of<std::int32_t>("linear.cross_entropy: targets", targets, rows);
  problem.weights = vector_of<float>("linear.cross_entropy: weights", weights, rows);
  problem.loss = vector_of<float>("linear.cross_entropy: loss", loss, rows);
  problem.scale = scale;
  problem.add = write == Write::add;
  if (dh) {
    problem.dhidden = Matrix(dh);
    check_same_shape("linear.cross_entropy: dh", problem.dhidden, problem.hidden);
    if (dw) problem.dweight = Matrix(dw);
    if (dw) check_weight("linear.cross_entropy", problem.dweight, master.rows, master.cols);
  }
  if (rows == 0) {
    if (problem.dweight && !problem.add) zero(exec, problem.dweight);
    return;
  }
  WEFT_CHECK(master.rows > 0, "linear.cross_entropy: an empty vocabulary");

  // Logits are held in h's dtype: in bf16 they cost half the traffic, and their rounding is below the products' own.
  const DType dtype = problem.hidden.dtype;
  const std::int64_t stride = padded_outputs(problem.vocabulary);
  const std::int64_t row_bytes = stride * static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t chunk = chunk_rows(rows, row_bytes, exec.logits_bytes);
  ScratchParts parts;
  const std::size_t workspace = parts.add(matmul_workspace(exec)), copy = parts.add(weight_scratch(w, dtype));
  const std::size_t logits = parts.add(static_cast<std::size_t>(chunk * row_bytes));
  auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
  problem.weight = weight_for(exec, w, dtype, scratch + copy);
  if (dtype == DType::bf16) problem.weight.rows = stride;
  dispatch_float(dtype, [&]<class T>() {
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      const std::int64_t count = std::min(chunk, rows - begin);
      run_chunk<T>(exec, problem, begin, count, {scratch + logits, dtype, count, problem.weight.rows, stride},
                   scratch + workspace);
    }
  });
}

}  // namespace weft::cuda
