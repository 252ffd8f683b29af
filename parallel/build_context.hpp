// What a model is built from: where its parameters go and how they are sharded. Passed by reference; no singleton.
#pragma once
#include "core/nn/parameter_store.hpp"
#include "parallel/mesh.hpp"
#include "parallel/shares.hpp"

namespace weft {

/// How attention works on sequences whose tokens lie over the sp ranks: keys and values travel round the ranks (Liu et al.
/// 2023), or heads and tokens change places (Jacobs et al. 2023).
enum class SequenceAttention : std::uint8_t { ring, exchange };

/// How a model is spread over the mesh, beyond its sizes.
struct ShardingOptions {
  /// Norms, dropout and residual sums on 1/tp of the rows (Korthikanti et al. 2022); nothing where tp is 1.
  bool tp_sequence = true;
  SequenceAttention sp_attention = SequenceAttention::ring;
  /// Each sp rank has one interval of a sequence, in order, as recurrences need it.
  bool contiguous_tokens = false;
  /// Into how many parts a batch goes where a recurrence hands its state from sp rank to sp rank; 0: chosen by its size.
  std::int64_t relay_parts = 0;
  /// Where products and the tp collectives of their rows overlap, they go in chunks of at least so many rows.
  std::int64_t chunk_rows = 512;
  /// Rows that go through the vocabulary-parallel loss at a time, at most.
  std::int64_t loss_rows = 4096;
};

struct BuildContext {
  Builder build;
  Mesh& mesh;
  ShardingOptions sharding = {};

  BuildContext child(std::string_view name) const { return {build.child(name), mesh, sharding}; }
  BuildContext child(std::string_view name, std::int64_t index) const {
    return {build.child(name, index), mesh, sharding};
  }
};

}  // namespace weft
