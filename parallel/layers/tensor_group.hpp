// The tensor-parallel ranks as layers see them, and how the rows of the residual stream lie over them.
#pragma once
#include "core/ops/context.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// Rows of a micro-batch in chunks, so that a chunk's collective runs beside the next one's product. Where the stream is
/// shared out, each rank has `run` rows of each chunk; rows that only fill the last chunk up are zeros.
struct StreamRows {
  std::int64_t rows = 0;   ///< without filling
  std::int64_t chunk = 0;  ///< rows of a chunk, all ranks together
  std::int64_t run = 0;    ///< of them on one rank; 0: all of them on each
  std::int64_t begin = 0;  ///< of this rank's rows in each chunk

  std::int64_t chunks() const { return chunk == 0 ? 0 : (rows + chunk - 1) / chunk; }
  bool shared() const { return run > 0; }
  std::int64_t local() const { return shared() ? run * chunks() : rows; }
  std::int64_t filled() const { return shared() ? chunk * chunks() : rows; }
  /// Rows of chunk i, without filling.
  Range part(std::int64_t i) const { return {i * chunk, std::min(rows, (i + 1) * chunk)}; }
};

class TensorGroup {
 public:
  explicit TensorGroup(const BuildContext& build)
      : comm_(&build.mesh.comm(Axis::tp)), sequence_(build.sharding.tp_sequence && comm_->size() > 1),
        chunk_rows_(build.sharding.chunk_rows), loss_rows_(build.sharding.loss_rows) {}

  Communicator& comm() const { return *comm_; }
  int size() const { return comm_->size(); }
  int rank() const { return comm_->rank(); }
  std::int64_t loss_rows() const { return loss_rows_; }
  /// Norms' and other stream parameters' placement along tp: each rank has a part of the gradient where rows are shared out.
  Slice stream_slice(Shape shape) const;

  /// Sets the context's rows and stream for a forward pass over [batch, seq] tokens. A `whole` stream is not shared out
  /// (decoding: a token is no row for each rank).
  void open(OpContext& cx, std::int64_t batch, std::int64_t seq, bool whole) const;
  StreamRows rows(const OpContext& cx) const;
  /// [batch, seq, width].
  static Shape whole_shape(const OpContext& cx, std::int64_t width) {
    const std::int64_t seq = std::max<std::int64_t>(1, cx.tokens.seq_local);
    return {cx.rows / seq, seq, width};
  }
  /// The shape of the stream here.
  Shape stream_shape(const OpContext& cx, std::int64_t width) const {
    const StreamRows r = rows(cx);
    return r.shared() ? Shape{r.local(), width} : whole_shape(cx, width);
  }

 private:
  Communicator* comm_;
  bool sequence_;
  std::int64_t chunk_rows_;
  std::int64_t loss_rows_;
};

}  // namespace weft
