// Channels over ranks, between a buffer in which every rank's share travels and rows of all channels.
#pragma once
#include "core/kernels/table.hpp"
#include "core/tensor/tensor.hpp"
#include "parallel/shares.hpp"

namespace weft {

/// Buffers are [ranks, rows, largest share]; rows of all channels [rows, width] may lie apart.
struct ChannelShares {
  std::int64_t width;
  int ranks, rank;

  Range of(int other) const { return share_of(width, ranks, other); }
  Range held() const { return of(rank); }
  bool even() const { return width % ranks == 0; }
  std::int64_t largest() const { return (width + ranks - 1) / ranks; }
  Tensor buffer(ExecContext& exec, std::int64_t rows, DType dtype) const;
  /// This rank's place in a buffer, [rows, its share].
  MutView own(const Tensor& buffer) const;
  void join(ExecContext& exec, const Tensor& buffer, const MutView& all) const;
  /// Fills shares up with zeros.
  void split(ExecContext& exec, const View& all, const Tensor& buffer) const;

 private:
  /// Rows of all channels as a buffer of even shares.
  template <class AnyView>
  AnyView by_rank(const AnyView& all) const;
  MutView share(const Tensor& buffer, int other) const;
};

}  // namespace weft
