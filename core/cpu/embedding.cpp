#include <cmath>

#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

void check_tokens(const View& tokens, std::int64_t rows, VocabShard shard, std::int64_t held) {
  const std::int64_t vocabulary = shard.size > 0 ? shard.size : held;
  WEFT_CHECK(shard.begin >= 0 && shard.begin + held <= vocabulary, "tokens [{}, {}) of a vocabulary of {}", shard.begin,
             shard.begin + held, vocabulary);
  check_given(tokens, {rows}, DType::i32, "tokens");
  const auto* ids = tokens.as<std::int32_t>();
  for (std::int64_t row = 0; row < rows; ++row)
    WEFT_CHECK(ids[row] >= 0 && ids[row] < vocabulary, "token {} of row {} in a vocabulary of {}", ids[row], row,
               vocabulary);
}

template <const VecKernels& vec>
void forward(ExecContext& exec, View tokens, View tokens_table, VocabShard shard, View positions_table, TokenMap rows,
             DropoutSpec dropout, MutView y) {
  const std::int64_t count = y.rows(), cols = y.cols();
  if (count == 0) return;
  check_given(y, y.shape, y.dtype, "y");
  check_given(tokens_table, {tokens_table.shape[0], cols}, DType::f32, "tokens_table");
  check_tokens(tokens.reshaped({tokens.numel()}), count, shard, tokens_table.shape[0]);
  check_positions(positions_table, rows, cols);
  EmbeddingForwardArgs args{.elem = elem_of(y),
                            .cols = cols,
                            .tokens = tokens.as<std::int32_t>(),
                            .vocab_begin = shard.begin,
                            .vocab_end = shard.begin + tokens_table.shape[0],
                            .token_table = floats(tokens_table),
                            .position_table = floats(positions_table),
                            .dropout = dropout_args(dropout),
                            .y = y.data};
  set_rows(args.dropout, rows);
  for_ranges(threads_for(exec, count, static_cast<std::int64_t>(3 * y.bytes())), count, 1,
             [&](std::int64_t begin, std::int64_t end, int) { vec.embedding_forward(args, begin, end); });
}

template <const VecKernels& vec>
void backward(ExecContext& exec, View dy, View tokens, VocabShard shard, TokenMap rows, DropoutSpec dropout,
              MutView dtokens, MutView dpositions) {
  const std::int64_t count = dy.rows(), cols = dy.cols();
  if (count == 0) return;
  check_given(dy, dy.shape, dy.dtype, "dy");
  check_given(dtokens, {dtokens.shape[0], cols}, DType::f32, "dtokens");
  check_tokens(tokens.reshaped({tokens.numel()}), count, shard, dtokens.shape[0]);
  check_positions(dpositions, rows, cols);
  EmbeddingBackwardArgs args{.elem = elem_of(dy),
                             .rows = count,
                             .cols = cols,
                             .dy = dy.data,
                             .tokens = tokens.as<std::int32_t>(),
                             .vocab_begin = shard.begin,
                             .vocab_end = shard.begin + dtokens.shape[0],
                             .dropout = dropout_args(dropout),
                             .dtokens = floats(dtokens),
                             .dpositions = floats(dpositions)};
  set_rows(args.dropout, rows);
  constexpr std::int64_t line = 64;
  for_ranges(threads_for(exec, (cols + line - 1) / line, static_cast<std::int64_t>(4 * dy.bytes())), cols, line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.embedding_backward(args, begin, end); });
}

template <const VecKernels& vec>
void rotary(ExecContext& exec, View x, TokenMap rows, float theta, bool inverse, MutView y) {
  WEFT_CHECK(x.shape.rank() == 4 && x.shape == y.shape && x.dtype == y.dtype, "x is {}, y is {}", to_string(x.shape),
             to_string(y.shape));
  const std::int64_t tokens = x.shape[1], dim = x.shape[3], half = dim / 2;
  if (x.numel() == 0) return;
  WEFT_CHECK(dim % 2 == 0 && x.strides[3] == 1 && y.strides[3] == 1, "head size {}", dim);
  const int threads = threads_for(exec, tokens, static_cast<std::int64_t>(2 * x.bytes()));
  const std::int64_t turn_floats = (dim + 15) / 16 * 16;
  auto* frequency = static_cast<double*>(exec.scratch(static_cast<std::size_t>(half) * sizeof(double) +
                                                      static_cast<std::size_t>(threads * turn_floats) * sizeof(float)));
  auto* turns = reinterpret_cast<float*>(frequency + half);
  for (std::int64_t i = 0; i < half; ++i)
    frequency[i] = std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  RotaryArgs args{.elem = elem_of(x),
                  .batch = x.shape[0],
                  .heads = x.shape[2],
                  .head_dim = dim,
                  .x = x.data,
                  .y = y.data,
                  .x_strides = {x.strides[0], x.strides[1], x.strides[2]},
                  .y_strides = {y.strides[0], y.strides[1], y.strides[2]},
                  .rows = {},
                  .frequency = frequency,
                  .direction = inverse ? -1.0 : 1.0};
  set_rows(args.rows, rows);
  for_ranges(threads, tokens, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    vec.rotary(args, begin, end, turns + thread * turn_floats);
  });
}

}  // namespace

void bind_embedding(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.embedding.forward.bind(forward<vec>);
    table.embedding.backward.bind(backward<vec>);
    table.embedding.rotary.bind(rotary<vec>);
  });
}

}  // namespace weft::cpu
