#include "parallel/layers/vocabulary.hpp"

#include <algorithm>

#include "core/ops/norm.hpp"
#include "parallel/layers/collective_pairs.hpp"

namespace weft {
namespace {

// As many rows at a time as keep the logits in so much memory, but enough to hide that the weight and its gradient are read
// and written once a chunk.
constexpr std::int64_t chunk_logits = 26 << 20, least_rows = 128;

// The same on all ranks of a group, whose shares of the vocabulary may differ by one: they meet in every chunk.
std::int64_t rows_at_a_time(std::int64_t rows, std::int64_t vocabulary, const TensorGroup& group) {
  const std::int64_t widest = (vocabulary + group.size() - 1) / group.size();
  const std::int64_t most = std::min(std::max(chunk_logits / widest, least_rows), group.loss_rows());
  const std::int64_t chunks = std::max<std::int64_t>(1, (rows + most - 1) / most);
  return (rows + chunks - 1) / chunks;
}

Range held_by(std::int64_t vocabulary, const TensorGroup& group, int rank) {
  return share_of(vocabulary, group.size(), rank);
}

}  // namespace

VocabularyTable::VocabularyTable(const BuildContext& build, std::int64_t vocabulary, std::int64_t width, Init init) {
  const TensorGroup group(build);
  Slice slice = Slice::whole({vocabulary, width});
  if (group.size() > 1) {
    if (vocabulary < group.size())
      fail_user("--tp: {} ranks for a vocabulary of {}; {} or fewer would be right", group.size(), vocabulary,
                vocabulary);
    const Range held = held_by(vocabulary, group, group.rank());
    slice.boxes = {{{held.begin, 0}, {held.size(), width}}};
    slice.placement[static_cast<std::size_t>(Axis::tp)] = Placement::sharded;
    shard_ = {held.begin, vocabulary};
  }
  weight_ = &build.build.param("weight", std::move(slice), init);
}

Tensor embed(OpContext& cx, const TensorGroup& group, const Tensor& tokens, const VocabularyTable& table,
             Parameter* positions, ops::EmbeddingOptions options) {
  if (group.size() == 1) return ops::embedding(cx, tokens, table.parameter(), positions, options);
  ops::EmbeddingOptions partial;
  partial.shard = table.shard();
  partial.adds_positions = group.rank() == 0;
  const Tensor embedded = ops::embedding(cx, tokens, table.parameter(), positions, partial);
  OpContext stream = cx.on_stream();
  return ops::dropout(stream, sum_forward_gather_backward(cx, group, embedded), options.dropout, options.dropout_site);
}

ops::CrossEntropy cross_entropy(OpContext& cx, const TensorGroup& group, const Tensor& h, const VocabularyTable& table,
                                const ops::LossTargets& targets) {
  Parameter& weight = table.parameter();
  if (group.size() == 1) return ops::cross_entropy(cx, h, weight, targets);
  const std::int64_t m = h.view().rows(), d = h.view().cols(), v = weight.shape()[0];
  WEFT_CHECK(weight.shape()[1] == d, "width {} into {}", d, weight.name());
  const View h_MD = h.view().reshaped({m, d});
  ops::CrossEntropy result{cx.empty({m}, DType::f32), cx.empty({1}, DType::f64)};
  Tensor dh;
  Write write = Write::overwrite;
  if (cx.recording()) {
    dh = cx.empty(h.shape(), h.dtype());
    write = weight.next_grad_write();
  }
  const std::int64_t step = rows_at_a_time(m, table.shard().size, group);
  const Tensor logits = cx.empty({step, v}, DType::f32), stats = cx.empty({group.size() * 2 * step}, DType::f32);
  const LinearKernels& linear = cx.kernels().linear;
  const ParameterUse use(&weight, Pass::forward);
  for (std::int64_t begin = 0; begin < m; begin += step) {
    const std::int64_t end = std::min(m, begin + step), count = end - begin;
    const auto rows = [&](const View& all) { return all.slice(begin, end); };
    const MutView all = stats.window(0, {group.size(), 2, count}).mut();
    const MutView own = all.slice(group.rank(), group.rank() + 1), chunk = logits.slice(0, count).mut();
    linear.shard_logits(cx.exec, rows(h_MD), weight.weight(), rows(targets.targets), table.shard(), chunk, own);
    group.comm().all_gather(own, all, stats.keep_alive()).wait();
    linear.shard_cross_entropy(cx.exec, rows(h_MD), weight.weight(), rows(targets.targets), rows(targets.weights),
                               targets.scale, table.shard(), all, write, chunk, result.rows.mut().slice(begin, end),
                               dh.defined() ? dh.mut().reshaped({m, d}).slice(begin, end) : MutView{},
                               dh.defined() ? weight.grad().mut() : MutView{});
    write = Write::add;
  }
  if (m == 0 && dh.defined() && write == Write::overwrite)
    cx.kernels().elementwise.fill(cx.exec, 0.0f, weight.grad().mut());
  cx.kernels().elementwise.dot(cx.exec, result.rows.view(), targets.weights, Write::overwrite, result.loss.mut());
  if (targets.scale != 1) cx.kernels().elementwise.scale(cx.exec, targets.scale, result.loss.mut());
  if (!cx.recording()) return result;
  const Cost forward = linear_cost(m, v, d, h.dtype());
  const Cost backward{2 * forward.flops, 2 * forward.bytes, forward.depth, forward.min_depth};
  cx.tape->record({"cross_entropy", {&h}, {&result.loss}, {&weight}, forward, backward},
                  [dh](BackwardPass& pass) { pass.give(0, dh); });
  return result;
}

Tensor gather_logits(OpContext& cx, const TensorGroup& group, const Tensor& h, const VocabularyTable& table) {
  WEFT_CHECK(!cx.recording(), "logits are not recorded; train through the loss");
  const Tensor own = ops::linear(cx, h, table.parameter(), nullptr);
  if (group.size() == 1) return own;
  const std::int64_t m = own.view().rows(), held = own.view().cols(), vocabulary = table.shard().size;
  const std::int64_t widest = (vocabulary + group.size() - 1) / group.size();
  const Tensor padded = cx.empty({m, widest}, own.dtype()), every = cx.empty({group.size(), m, widest}, own.dtype());
  const Tensor all = cx.empty({m, vocabulary}, own.dtype());
  const auto columns = [](MutView view, std::int64_t begin, std::int64_t count) {
    view.data = static_cast<char*>(view.data) + begin * static_cast<std::int64_t>(size_of(view.dtype));
    view.shape[1] = count;
    return view;
  };
  const auto& copy = cx.kernels().elementwise.copy;
  cx.kernels().elementwise.fill(cx.exec, 0.0f, padded.mut());
  copy(cx.exec, own.view().reshaped({m, held}), columns(padded.mut(), 0, held));
  group.comm().all_gather(padded.view(), every.mut(), every.keep_alive()).wait();
  for (int rank = 0; rank < group.size(); ++rank) {
    const Range part = held_by(vocabulary, group, rank);
    copy(cx.exec, columns(every.slice(rank, rank + 1).reshaped({m, widest}).mut(), 0, part.size()),
         columns(all.mut(), part.begin, part.size()));
  }
  return all;
}

}  // namespace weft
