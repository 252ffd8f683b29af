// Arguments of the scan kernels; see core/kernels/scan.hpp for the equations. Strides in elements.
#pragma once
#include "core/cpu/vec/elem.hpp"

namespace weft::cpu {

/// weft::ScanCell, in its order.
enum class ScanKind : std::uint8_t { sru, sru_affine, qrnn_f, qrnn_fo, mingru, minlstm, mean };

struct ScanArgs {
  ScanKind cell;
  Elem elem;
  bool tanh;
  std::int64_t steps, channels, chunk, steps_before;
  float skip_scale;
  const void* u;     ///< with u_strides of sequence and step
  const void* skip;  ///< may be null
  std::int64_t u_strides[2], skip_strides[2];
  const float *v_f, *v_r, *b_f, *b_r;  ///< of SRU
  const float* mask;                   ///< [B, channels], may be null
  void* h;                             ///< forward: [B, steps, channels]
  float* states;                       ///< [B, chunks, channels]; null in forward: not kept
  const void* dh;                      ///< backward
  void *du, *dskip;                    ///< dskip is null where skip is
  std::int64_t du_strides[2], dskip_strides[2];
};

/// A piece of one sequence. Steps count in the order in which they run: with `reverse`, from the last token. The pointers
/// below are to the first of all channels.
struct ScanTask {
  std::int64_t sequence, channel_begin, channel_end, step_begin, step_end;
  bool reverse;
  float*
      state;  ///< in and out: the state before and after, in the backward pass the gradient of the one after and before
  float* product;   ///< of summaries, in and out
  float* partials;  ///< SRU's backward: [4, channels], added to: of v_f, v_r, b_f, b_r
  void* kept;       ///< backward: room for a chunk, see scan_kept_floats; this thread's, 64-byte aligned
};

/// Floats that a task keeps for each step and channel from recomputing a chunk; channels count in sixteens.
inline constexpr std::int64_t scan_kept_floats = 6;

}  // namespace weft::cpu
