// Token and position embeddings, and rotary positions.
#pragma once
#include "core/kernels/dropout.hpp"
#include "core/kernels/slot.hpp"

namespace weft {

/// The part of a vocabulary that a weight's rows stand for: tokens [begin, begin + rows).
struct VocabShard {
  std::int64_t begin = 0;
  std::int64_t size = 0;  ///< tokens of the whole vocabulary; 0: the weight's rows are all of it
};

struct EmbeddingKernels {
  /// y[M,D] = dropout(tokens_table[token] + positions_table[position]); tokens i32[M]; tables f32 [V,D], [P,D]; the
  /// position table may be empty. Row r's position is rows.position(r mod seq_local). A token of another shard stands for
  /// zeros.
  Slot<void(View tokens, View tokens_table, VocabShard shard, View positions_table, TokenMap rows, DropoutSpec dropout, MutView y)> forward{
      "embedding.forward"};
  /// Adds each row of dropout'(dy) into dtokens[token] and dpositions[position] (f32, += always; zeroed by the caller),
  /// in a fixed order. dpositions may be empty. Tokens of another shard add nothing to dtokens.
  Slot<void(View dy, View tokens, VocabShard shard, TokenMap rows, DropoutSpec dropout, MutView dtokens, MutView dpositions)> backward{
      "embedding.backward"};
  /// Rotary positions (Su et al. 2021), halves convention of Llama: pairs (i, i + hd/2) of each head are turned by
  /// position·theta^(−2i/hd). x[B,T,H,hd], strided; y may be x's memory. The gradient is the turn by −position.
  Slot<void(View x, TokenMap rows, float theta, bool inverse, MutView y)> rotary{"rotary"};
};

Cost embedding_cost(std::int64_t rows, std::int64_t cols, DType dtype);

}  // namespace weft
