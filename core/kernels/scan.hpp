// Elementwise recurrences over [B, T, D]: each channel has a state of its own, and the gates' products of all steps were
// made before, as one matrix product. σ is the sigmoid, ⊙ elementwise, c⁻ the state before a step.
//
// A recurrence c = A⊙c⁻ + b whose A and b do not depend on the state is affine: (A₂,b₂)∘(A₁,b₁) = (A₂A₁, A₂b₁ + b₂) is
// associative, so that pieces of the sequence can go in parallel (Blelloch 1990; Martin & Cundy 2018). Every backward pass
// here is affine in the gradient of the state, also that of the SRU whose forward pass is not.
#pragma once
#include <limits>

#include "core/kernels/slot.hpp"

namespace weft {

/// What a step does with the columns u0, u1, … of its product, D each.
enum class ScanCell : std::uint8_t {
  /// f = σ(u1 + v_f⊙c⁻ + b_f), r = σ(u2 + v_r⊙c⁻ + b_r), c = f⊙c⁻ + (1−f)⊙u0, h = r⊙m⊙(g(c) − x′) + x′ (Lei et al. 2018)
  sru,
  /// The same with v = 0 (Lei et al. 2017): affine.
  sru_affine,
  /// z = tanh u0, f = σ(u1), c = f⊙c⁻ + (1−f)⊙z, h = c (Bradbury et al. 2017)
  qrnn_f,
  /// and o = σ(u2), h = o⊙c
  qrnn_fo,
  /// z = σ(u0), c = (1−z)⊙c⁻ + z⊙g(u1), h = c with g(x) = x + ½ for x >= 0, else σ(x) (Feng et al. 2024)
  mingru,
  /// f, i = σ(u0), σ(u1), divided by f + i; c = f⊙c⁻ + i⊙g(u2), h = c
  minlstm,
  /// c = c⁻ + u0, h = c over the number of steps so far
  mean,
};

struct ScanCellTraits {
  int gates;    ///< columns of u in units of D
  bool affine;  ///< in the state
};

constexpr ScanCellTraits traits_of(ScanCell cell) {
  switch (cell) {
    case ScanCell::sru: return {3, false};
    case ScanCell::sru_affine: return {3, true};
    case ScanCell::qrnn_f: return {2, true};
    case ScanCell::qrnn_fo: return {3, true};
    case ScanCell::mingru: return {2, true};
    case ScanCell::minlstm: return {3, true};
    case ScanCell::mean: return {1, true};
  }
  return {0, false};
}

/// States are kept each so many steps for the backward pass, which recomputes those between.
inline constexpr std::int64_t scan_chunk = 32;
constexpr std::int64_t scan_chunks(std::int64_t steps) { return (steps + scan_chunk - 1) / scan_chunk; }

struct ScanSpec {
  ScanCell cell = ScanCell::qrnn_f;
  bool tanh = false;     ///< SRU: g is tanh, else the identity
  float skip_scale = 1;  ///< SRU: x′ = skip_scale·skip
  /// Channels from here on run from the last token to the first.
  std::int64_t reverse_from = std::numeric_limits<std::int64_t>::max();
  std::int64_t steps_before = 0;  ///< mean: steps that the initial state has seen
  /// Steps that go one after another in the forward and in the backward pass; where there are more, pieces of so many go in
  /// parallel. 0: all. A multiple of scan_chunk.
  std::int64_t forward_span = 0, backward_span = 0;
};

struct ScanOperands {
  View u;         ///< [B, T, gates·D]; steps may be further apart than that
  View skip;      ///< SRU: [B, T, D], as u; empty: x′ = 0
  View v_f, v_r;  ///< sru: f32[D]
  View b_f, b_r;  ///< SRU: f32[D]
  View mask;      ///< SRU: m, f32[B, D], a factor for each sequence; may be empty
};

/// Those of skip and mask's neighbours may be empty where the operand is. du and dskip are laid out as u and skip.
struct ScanGradients {
  MutView du, dskip;
  Write write = Write::overwrite;  ///< of the parameters' gradients, which are summed over B and T in a fixed order
  MutView dv_f, dv_r, db_f, db_r;
  MutView initial;  ///< f32[B, D], may be empty
};

struct ScanKernels {
  /// h[B, T, D]; states f32[B, scan_chunks(T), D] = the state before each chunk, may be empty; final f32[B, D] = the state
  /// after the last step. initial f32[B, D]; empty: zeros.
  Slot<void(ScanSpec spec, ScanOperands in, View initial, MutView h, MutView states, MutView final)> forward{
      "scan.forward"};
  /// From dh and, if it is not empty, the gradient dfinal f32[B, D] of the last state.
  Slot<void(ScanSpec spec, ScanOperands in, View states, View dh, View dfinal, ScanGradients out)> backward{
      "scan.backward"};
  /// product, sum f32[B, D] with final = product⊙initial + sum over all steps; affine cells alone. What a rank that holds a
  /// part of the tokens gives to the exclusive scan of carries over ranks.
  Slot<void(ScanSpec spec, ScanOperands in, MutView product, MutView sum)> summary{"scan.summary"};
  /// The same for the gradient of the state: dinitial = product⊙dfinal + sum; all cells.
  Slot<void(ScanSpec spec, ScanOperands in, View states, View dh, MutView product, MutView sum)> backward_summary{
      "scan.backward_summary"};
  /// state f32[N] = what the affine maps of parts from, from ± 1, … before `to` make of 0, one after another: of part k,
  /// state := maps[k, 0]⊙state + maps[k, 1]. maps f32[parts, 2, N].
  Slot<void(View maps, std::int64_t from, std::int64_t to, MutView state)> carry{"scan.carry"};
};

struct ScanShape {
  std::int64_t batch, steps, channels;
};

/// Fills both spans by a fixed rule of shape, device and threads: in parallel where sequences and channels leave workers
/// idle and the pieces are long enough to pay for reading u twice.
void choose_scan_spans(ScanSpec& spec, ScanShape shape, DeviceId device, int threads);

enum class ScanPass : std::uint8_t { forward, backward };

/// Depth: the span, and ⌈log2 pieces⌉ to combine the pieces' summaries (a summary is a reduction). At least ⌈log2 T⌉ for what
/// is affine, T for what is not, 1 for the mean, which is a reduction itself.
Cost scan_cost(const ScanSpec& spec, ScanShape shape, DType dtype, ScanPass pass);

}  // namespace weft
