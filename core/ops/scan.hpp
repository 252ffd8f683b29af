// Elementwise recurrences over the products of all steps; core/kernels/scan.hpp has the cells' equations.
#pragma once
#include "core/base/range.hpp"
#include "core/ops/context.hpp"
#include "core/ops/neighbours.hpp"

namespace weft::ops {

struct ScanOptions {
  ScanCell cell = ScanCell::qrnn_f;
  std::int64_t reverse_from = std::numeric_limits<std::int64_t>::max();  ///< channels from here on run backward in time
  std::int64_t steps_before = 0;  ///< mean: tokens that the initial state has seen
  /// Null: u has all tokens. Affine cells alone, all channels forward in time, no initial state.
  std::shared_ptr<const SequenceNeighbours> neighbours = nullptr;
  /// SRU alone:
  bool tanh = false;
  bool skip_in_u = false;                    ///< u has a fourth column, x′
  float skip_scale = 1;                      ///< on `skip`
  Parameter *v_f = nullptr, *v_r = nullptr;  ///< ScanCell::sru
  Parameter *b_f = nullptr, *b_r = nullptr;
};

struct Scanned {
  Tensor h;      ///< [B, T, D]
  Tensor final;  ///< f32 [B, D], the last state of the tokens here
};

/// What a scan over `steps` tokens of u's sequences costs, forward and backward.
std::pair<Cost, Cost> scan_costs(const OpContext& cx, const ScanOptions& options, const Tensor& u, std::int64_t steps);

/// u [B, T, gates·D]; skip [B, T, D] is SRU's x′ before its scale, mask f32 [B, D] a factor for each sequence (no gradient),
/// initial f32 [B, D] the state before; each of the three may be undefined. Step by step or in parallel pieces by
/// choose_scan_spans.
Scanned scan(OpContext& cx, const ScanOptions& options, const Tensor& u, const Tensor& skip = {},
             const Tensor& mask = {}, const Tensor& initial = {});

/// Factors f32 [B, held] of dropout for the channels `held` of `cols`, the same for all tokens of a sequence; undefined without
/// dropout.
Tensor sequence_dropout(OpContext& cx, std::int64_t batch, std::int64_t cols, Range held, float p, int site);

struct Windowed {
  Tensor y;        ///< [B, T, size·D]
  Tensor history;  ///< [B, size − 1, D], the last inputs, the newest first
};

/// y_t = x_t | x_{t−1} | … | x_{t−size+1}: what a causal convolution multiplies. Inputs before the first come from `history`
/// [B, size − 1, D], the newest first, or are 0; history has no gradient. With neighbours they are the part before's, which
/// has size − 1 tokens or more.
Windowed window(OpContext& cx, const Tensor& x, std::int64_t size, const Tensor& history = {},
                std::shared_ptr<const SequenceNeighbours> neighbours = nullptr);

}  // namespace weft::ops
