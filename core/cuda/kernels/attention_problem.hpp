// What attention's kernels are given, and what of the scores' matrix a tile sees and keeps.
#pragma once
#include <algorithm>

#include "core/cuda/device/dropout.hpp"
#include "core/cuda/device/numeric.hpp"
#include "core/kernels/attention.hpp"

namespace weft::cuda::attention {

inline constexpr float log2_e = 1.44269504088896341f;
inline constexpr float infinity = __builtin_inff();

/// The kernels that any GPU runs, on CUDA cores in f32. Arguments are checked, and there is something to do.
/// Positions and their gradients may be null.
void forward_on_cores(ExecContext& exec, View q, View k, View v, const AttentionSpec& spec, MutView out, MutView lse,
                      const RelativePositions* positions);
void backward_on_cores(ExecContext& exec, View q, View k, View v, View out, View lse, View dout,
                       const AttentionSpec& spec, MutView dq, MutView dk, MutView dv,
                       const RelativePositions* positions, const RelativeGradients* gradients);

/// Rows in a tile of at most `most`, of `left` that there are.
WEFT_DEVICE int tile_size(std::int64_t left, int most) { return left < most ? static_cast<int>(left) : most; }

/// Rows of one head: where they start, how far apart and how many they are, and their length.
template <class T>
struct Rows {
  T* data;
  std::int64_t stride;
  int count, dim;
  bool packed;  // whether they go in packs

  WEFT_DEVICE bool holds(int row) const { return row < count; }
  WEFT_DEVICE const float* bias() const { return nullptr; }
};

/// An operand [B, length, heads, dim].
template <class T>
struct Operand {
  T* data;
  std::int64_t batch_stride, stride, head_stride;
  int dim;
  bool packed;

  WEFT_DEVICE Rows<T> rows(std::int64_t batch, std::int64_t head, std::int64_t first, int count) const {
    return {data + batch * batch_stride + head * head_stride + first * stride, stride, count, dim, packed};
  }
};

/// Host: a view as an operand that is accessed in packs of `width` where they are aligned.
template <class T, int width, class AnyView>
auto operand(const AnyView& view) {
  auto* data = view.template as<T>();
  const auto dim = static_cast<int>(view.shape[3]);
  const bool packed = can_pack<width>(data, dim, view.strides[0]) && can_pack<width>(data, dim, view.strides[1]) &&
                      can_pack<width>(data, dim, view.strides[2]);
  return Operand<std::remove_pointer_t<decltype(data)>>{data, view.strides[0], view.strides[1], view.strides[2],
                                                        dim,  packed};
}

/// Dropout on the probabilities: element (q, k) of a plane is kept if its word is at least `threshold`.
struct Dropout {
  const PhiloxKey* key = nullptr;  // null: none
  std::uint32_t threshold = 0;
  float factor = 1;
  std::uint64_t first_sequence = 0, first_head = 0, heads = 0, length = 0;
};

struct Problem {
  std::int64_t batch, q_len, k_len;
  int heads, kv_heads;
  bool causal;
  std::int64_t shift;  // of a causal mask: query i sees key j when i >= j + shift
  std::int64_t q_begin, k_begin;
  float scale;
  Dropout dropout;

  Problem(const View& q, const View& k, const AttentionSpec& spec)
      : batch(q.shape[0]), q_len(q.shape[1]), k_len(k.shape[1]), heads(static_cast<int>(q.shape[2])),
        kv_heads(static_cast<int>(k.shape[2])), causal(spec.causal), shift(spec.k_begin - spec.q_begin),
        q_begin(spec.q_begin), k_begin(spec.k_begin), scale(spec.scale) {
    const DropoutRule rule = dropout_of(spec.dropout);
    if (!rule.key) return;
    dropout.key = rule.key;
    dropout.threshold = rule.threshold;
    dropout.factor = rule.factor;
    dropout.first_sequence = static_cast<std::uint64_t>(spec.dropout.rows.first_sequence);
    dropout.first_head = static_cast<std::uint64_t>(spec.head_begin);
    dropout.heads = static_cast<std::uint64_t>(spec.heads_global);
    dropout.length = static_cast<std::uint64_t>(spec.seq_global);
  }

  WEFT_HOST_DEVICE int group() const { return heads / kv_heads; }
  /// How many keys query i sees.
  WEFT_HOST_DEVICE std::int64_t visible_keys(std::int64_t i) const {
    const std::int64_t seen = causal ? i - shift + 1 : k_len;
    return seen < 0 ? 0 : (seen < k_len ? seen : k_len);
  }
  /// In a tile of at most `queries` × `keys` from (q0, k0) on, the mask lets query i see key j when j < diagonal + i.
  WEFT_DEVICE int diagonal(std::int64_t q0, std::int64_t k0, int queries, int keys) const {
    const std::int64_t exact = causal ? q0 - shift + 1 - k0 : keys;
    return static_cast<int>(exact < -queries ? -queries : (exact < keys ? exact : keys));
  }
};

/// Which probabilities of a tile dropout keeps, in shared memory. A byte holds the bits of a Philox block's four words,
/// which belong to neighbouring keys of one query, so a block is computed once.
template <int queries, int keys>
struct KeepBits {
  static constexpr int groups = keys / 4 + 1;  // a row may start within a block
  static constexpr std::size_t bytes = (queries * groups + 15) / 16 * 16;

  std::uint8_t* bits;
  std::uint64_t start, step;  // global index of the tile's first element, and from a query to the next

  /// The block's threads compute the bits of the tile from (q0, k0) on; a sync must come before they are read.
  WEFT_DEVICE static KeepBits fill(const Block& block, const Problem& problem, std::int64_t batch, std::int64_t head,
                                   std::int64_t q0, std::int64_t k0, void* shared) {
    const Dropout& d = problem.dropout;
    const auto plane = (d.first_sequence + static_cast<std::uint64_t>(batch)) * d.heads + d.first_head +
                       static_cast<std::uint64_t>(head);
    const KeepBits keep{static_cast<std::uint8_t*>(shared),
                        (plane * d.length + static_cast<std::uint64_t>(problem.q_begin + q0)) * d.length +
                            static_cast<std::uint64_t>(problem.k_begin + k0),
                        d.length};
    const PhiloxKey key = *d.key;
    for (int i = block.thread(); i < queries * groups; i += block.threads()) {
      const auto first = keep.start + static_cast<std::uint64_t>(i / groups) * keep.step;
      const PhiloxBlock words = philox_block(key, first / 4 + static_cast<std::uint64_t>(i % groups));
      unsigned mask = 0;
      for (unsigned w = 0; w < 4; ++w) mask |= (words[w] >= d.threshold ? 1u : 0u) << w;
      keep.bits[i] = static_cast<std::uint8_t>(mask);
    }
    return keep;
  }

  WEFT_DEVICE bool operator()(int query, int key) const {
    const auto skip = (static_cast<unsigned>(start) + static_cast<unsigned>(query) * static_cast<unsigned>(step)) % 4;
    const unsigned at = skip + static_cast<unsigned>(key);
    return (bits[query * groups + static_cast<int>(at / 4)] >> at % 4) & 1u;
  }
};

/// Calls body.template operator()<dim>() with the least padded head size that holds `dim`.
template <class Body>
void dispatch_dim(std::int64_t dim, Body&& body) {
  WEFT_CHECK(dim >= 1 && dim <= 1024, "attention with heads of {}, 1 to 1024 are possible", dim);
  if (dim <= 32) return body.template operator()<32>();
  if (dim <= 64) return body.template operator()<64>();
  if (dim <= 96) return body.template operator()<96>();
  if (dim <= 128) return body.template operator()<128>();
  if (dim <= 192) return body.template operator()<192>();
  if (dim <= 256) return body.template operator()<256>();
  if (dim <= 512) return body.template operator()<512>();
  body.template operator()<1024>();
}

}  // namespace weft::cuda::attention
