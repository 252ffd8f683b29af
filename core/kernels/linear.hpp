// Matrix products with a weight. M rows (tokens), K inputs, N outputs. Sources: x, y, dx, dy are all f32 or all bf16;
// masters, biases and their gradients are f32.
#pragma once
#include <cstdint>
#include <memory>

#include "core/kernels/embedding.hpp"
#include "core/kernels/slot.hpp"

namespace weft {

/// A backend's own copies of a weight (packed, converted); dropped when the weight's version moves on.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
};

/// A weight as kernels take it: the f32 master [N, K], and a place where the backend keeps packed copies of it.
/// A backend repacks when `version` differs from the version that it packed.
struct WeightRef {
  View value;
  std::unique_ptr<PackedWeight>* pack = nullptr;  ///< null: do not cache
  std::uint64_t version = 0;
};

/// Applied to x·Wᵀ + bias before it is stored.
enum class Epilogue : std::uint8_t { none, gelu };

struct LinearKernels {
  /// y[M,N] = epilogue(x[M,K]·Wᵀ + bias[N]) + residual[M,N]; bias and residual may be empty; y may be the residual itself.
  /// With Epilogue::gelu the value before it is stored to pre[M,N] if that is not empty, and residual must be empty.
  Slot<void(View x, WeightRef w, View bias, Epilogue epilogue, View residual, MutView pre, MutView y)> forward{
      "linear.forward"};
  /// dx[M,K] (= or +=) dy[M,N]·W.
  Slot<void(View dy, WeightRef w, Write write, MutView dx)> backward_data{"linear.backward_data"};
  /// dw[N,K] (= or +=) dyᵀ·x and db[N] (= or +=) column sums of dy, both f32; db may be empty.
  Slot<void(View dy, View x, Write write, MutView dw, MutView db)> backward_weight{"linear.backward_weight"};

  /// Softmax cross-entropy of logits h[M,D]·Wᵀ (W [V,D]) that never holds all logits: rows go through in chunks.
  /// loss[M] (f32) = lse_r − logit_r[target_r]; rows with weight 0 or a negative target cost nothing and have loss 0.
  /// If dh is not empty also, for the scalar Σ_r scale·weights[r]·loss[r]: dh[M,D] = gradient of h, and dw[V,D]
  /// (= or +=). targets i32[M], weights f32[M].
  Slot<void(View h, WeightRef w, View targets, View weights, float scale, Write write, MutView loss, MutView dh,
            MutView dw)>
      cross_entropy{"linear.cross_entropy"};

  /// The same over a vocabulary of which W [V,D] is a shard, in two steps with the ranks' exchange between them (section 3
  /// of Shoeybi et al. 2019). First logits f32[M,V] = h·Wᵀ, and stats f32[2,M]: log Σ exp over the shard's logits, and the
  /// target's logit, 0 where another shard has it.
  Slot<void(View h, WeightRef w, View targets, VocabShard shard, MutView logits, MutView stats)> shard_logits{
      "linear.shard_logits"};
  /// Then from the stats of all n shards, f32[n,2,M], loss[M] as above, and the shard's part of dh, and dw, as above;
  /// logits are used up.
  Slot<void(View h, WeightRef w, View targets, View weights, float scale, VocabShard shard, View stats, Write write,
            MutView logits, MutView loss, MutView dh, MutView dw)>
      shard_cross_entropy{"linear.shard_cross_entropy"};
};

/// Cost of `M` rows through a K→N product, one of forward, data gradient or weight gradient.
Cost linear_cost(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype);

}  // namespace weft
