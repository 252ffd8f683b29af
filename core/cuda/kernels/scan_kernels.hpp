// The scan's kernels. A thread has one channel of one sequence, or of a piece of it: the threads of a warp read neighbouring
// channels of one step, several steps ahead of the chain that waits for them. Backward goes chunk by chunk from the end, and
// recomputes a chunk's states into shared memory.
#pragma once
#include <bit>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/kernels/scan_cells.hpp"
#include "core/kernels/scan.hpp"

namespace weft::cuda::scan {

inline constexpr int lane_threads = 128, ahead = 4;

/// The operands of a call, and into how many pieces of `span` steps it goes.
template <class T>
struct Problem {
  const T* u;
  const T* skip;  // may be null
  std::int64_t u_sequence, u_step, skip_sequence, skip_step;
  const float *v_f, *v_r, *b_f, *b_r;  // null for cells without
  const float* mask;                   // may be null
  std::int64_t batch, steps, channels, reverse_from, steps_before, span, pieces;
  float skip_scale;
  bool tanh;

  std::int64_t column_blocks() const { return ceil_div(channels, lane_threads); }
};

/// What one thread works on.
template <class T, class Cell>
struct Lane {
  const Problem<T>& problem;
  std::int64_t piece, sequence, channel, begin, end;
  bool reverse;
  typename Cell::Step fixed;  // what all steps share

  WEFT_DEVICE Lane(const Problem<T>& p, const Block& block) : problem(p) {
    const std::int64_t columns = (p.channels + lane_threads - 1) / lane_threads, row = block.index() / columns;
    channel = block.index() % columns * lane_threads + block.thread();
    piece = row / p.batch;
    sequence = row % p.batch;
    begin = piece * p.span;
    end = begin + p.span < p.steps ? begin + p.span : p.steps;
    reverse = channel >= p.reverse_from;
    if (!there()) return;
    fixed = {};
    if (p.v_f) fixed.v_f = p.v_f[channel];
    if (p.v_r) fixed.v_r = p.v_r[channel];
    if (p.b_f) fixed.b_f = p.b_f[channel];
    if (p.b_r) fixed.b_r = p.b_r[channel];
    fixed.mask = p.mask ? p.mask[state()] : 1.0f;
    fixed.tanh = p.tanh;
  }
  WEFT_DEVICE bool there() const { return channel < problem.channels; }
  /// This thread's place in [B, D], and in [pieces, B, D].
  WEFT_DEVICE std::int64_t state() const { return sequence * problem.channels + channel; }
  WEFT_DEVICE std::int64_t carry() const { return piece * problem.batch * problem.channels + state(); }
  WEFT_DEVICE std::int64_t token(std::int64_t step) const { return reverse ? problem.steps - 1 - step : step; }
  WEFT_DEVICE std::int64_t in_h(std::int64_t step) const {
    return (sequence * problem.steps + token(step)) * problem.channels + channel;
  }
  WEFT_DEVICE std::int64_t in_states(std::int64_t chunk) const {
    return (sequence * ((problem.steps + scan_chunk - 1) / scan_chunk) + chunk) * problem.channels + channel;
  }
  WEFT_DEVICE typename Cell::Step load(std::int64_t step) const {
    typename Cell::Step x = fixed;
    const std::int64_t at = token(step);
    const T* from = problem.u + sequence * problem.u_sequence + at * problem.u_step + channel;
    WEFT_UNROLL
    for (int k = 0; k < Cell::columns; ++k) x.u[k] = to_float(from[k * problem.channels]);
    if (problem.skip)
      x.skip = problem.skip_scale *
               to_float(problem.skip[sequence * problem.skip_sequence + at * problem.skip_step + channel]);
    x.part = 1.0f / static_cast<float>(problem.steps_before + step + 1);
    return x;
  }
  /// body(step, x) for steps [from, to) in order, loaded ahead.
  template <class Body>
  WEFT_DEVICE void forward(std::int64_t from, std::int64_t to, Body&& body) const {
    std::int64_t step = from;
    for (; step + ahead <= to; step += ahead) {
      typename Cell::Step x[ahead];
      WEFT_UNROLL
      for (int k = 0; k < ahead; ++k) x[k] = load(step + k);
      WEFT_UNROLL
      for (int k = 0; k < ahead; ++k) body(step + k, x[k]);
    }
    for (; step < to; ++step) body(step, load(step));
  }
};

template <class T, class Cell>
struct Forward {
  static constexpr int threads = lane_threads;
  Problem<T> problem;
  const float* initial;  // [pieces, B, D]; null: zeros
  T* h;
  float* states;  // may be null
  float* final;

  WEFT_DEVICE void operator()(const Block& block) const {
    const Lane<T, Cell> lane(problem, block);
    if (!lane.there()) return;
    float c = initial ? initial[lane.carry()] : 0.0f;
    lane.forward(lane.begin, lane.end, [&](std::int64_t step, const typename Cell::Step& x) {
      if (states && step % scan_chunk == 0) states[lane.in_states(step / scan_chunk)] = c;
      const auto gates = Cell::open(x, c);
      c = Cell::keep(x, gates) * c + Cell::add(x, gates);
      h[lane.in_h(step)] = from_float<T>(Cell::output(x, gates, c));
    });
    if (lane.end == problem.steps) final[lane.state()] = c;
  }
};

template <class T, class Cell>
struct Summary {
  static constexpr int threads = lane_threads;
  Problem<T> problem;
  float* products;  // [pieces, B, D]
  float* sums;

  WEFT_DEVICE void operator()(const Block& block) const {
    const Lane<T, Cell> lane(problem, block);
    if (!lane.there()) return;
    float c = 0.0f, product = 1.0f;
    lane.forward(lane.begin, lane.end, [&](std::int64_t, const typename Cell::Step& x) {
      const auto gates = Cell::open(x, 0.0f);
      const float keep = Cell::keep(x, gates);
      c = keep * c + Cell::add(x, gates);
      product *= keep;
    });
    products[lane.carry()] = product;
    sums[lane.carry()] = c;
  }
};

template <class T>
struct BackwardOperands {
  Problem<T> problem;
  const float* states;
  const T* dh;
  const float* dfinal;  // [pieces, B, D], the last piece first; null: zeros
  T* du;
  T* dskip;  // null where skip is
  std::int64_t du_sequence, du_step, dskip_sequence, dskip_step;
  float* initial;   // [B, D], may be null
  float* partials;  // [pieces, B, 4, D]; null for cells without parameters
  float* products;  // of summaries: [pieces, B, D], the last piece first
  float* sums;
};

enum class Wanted { gradients, summary };

template <Wanted wanted, class T, class Cell>
struct Backward : BackwardOperands<T> {
  static constexpr int threads = lane_threads;
  static constexpr std::size_t shared_bytes = sizeof(float) * scan_chunk * threads;

  WEFT_DEVICE void operator()(const Block& block) const {
    const Problem<T>& p = this->problem;
    const Lane<T, Cell> lane(p, block);
    if (!lane.there()) return;
    // Only this thread's own column: no barrier.
    float* before = block.shared<float>() + block.thread();
    const std::int64_t from_end = (p.pieces - 1 - lane.piece) * p.batch * p.channels + lane.state();
    float gradient = 0.0f, product = 1.0f;
    if (wanted == Wanted::gradients && this->dfinal) gradient = this->dfinal[from_end];
    typename Cell::Gradient to{};
    for (std::int64_t first = (lane.end - 1) / scan_chunk * scan_chunk; first >= lane.begin; first -= scan_chunk) {
      const std::int64_t last = first + scan_chunk < lane.end ? first + scan_chunk : lane.end;
      float c = this->states[lane.in_states(first / scan_chunk)];
      lane.forward(first, last, [&](std::int64_t step, const typename Cell::Step& x) {
        before[(step - first) * threads] = c;
        const auto gates = Cell::open(x, c);
        c = Cell::keep(x, gates) * c + Cell::add(x, gates);
      });
      for (std::int64_t step = last - 1; step >= first; --step) {
        const auto x = lane.load(step);
        const float dh_t = to_float(this->dh[lane.in_h(step)]), old = before[(step - first) * threads];
        const auto gates = Cell::open(x, old);
        const float now = Cell::keep(x, gates) * old + Cell::add(x, gates);
        const float gc = dh_t * Cell::slope(x, gates, now) + gradient, through = Cell::through(x, gates, old);
        gradient = through * gc + Cell::beside(x, gates, now, dh_t);
        if constexpr (wanted == Wanted::gradients) {
          Cell::close(x, gates, old, now, gc, dh_t, to);
          store(lane, step, to);
        } else {
          product *= through;
        }
      }
    }
    if constexpr (wanted == Wanted::summary) {
      this->products[from_end] = product;
      this->sums[from_end] = gradient;
    } else {
      if (this->initial && lane.begin == 0) this->initial[lane.state()] = gradient;
      if (this->partials)
        for (int k = 0; k < 4; ++k)
          this->partials[((lane.piece * p.batch + lane.sequence) * 4 + k) * p.channels + lane.channel] = to.sums[k];
    }
  }

  WEFT_DEVICE void store(const Lane<T, Cell>& lane, std::int64_t step, const typename Cell::Gradient& to) const {
    const std::int64_t at = lane.token(step);
    T* du_row = this->du + lane.sequence * this->du_sequence + at * this->du_step + lane.channel;
    WEFT_UNROLL
    for (int k = 0; k < Cell::columns; ++k) du_row[k * this->problem.channels] = from_float<T>(to.du[k]);
    if (this->dskip)
      this->dskip[lane.sequence * this->dskip_sequence + at * this->dskip_step + lane.channel] =
          from_float<T>(this->problem.skip_scale * to.dskip);
  }
};

/// Inclusive scan over the first dim of (products, sums) [count, size], whose first row is made here: 1 and `initial`. By
/// doubling distances (Kogge & Stone 1973) from one pair of buffers to the other, levels(count) times; a block has 32 columns.
struct Combine {
  static constexpr int threads = 256;
  float* products[2];
  float* sums[2];
  const float* initial;  // null: zeros
  std::int64_t count, size;

  static std::int64_t levels(std::int64_t count) { return std::bit_width(static_cast<std::uint64_t>(count - 1)); }

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t column = block.index() * warp_threads + block.lane();
    const bool there = column < size;
    if (there && block.warp() == 0) {
      products[0][column] = 1.0f;
      sums[0][column] = initial ? initial[column] : 0.0f;
    }
    int from = 0;
    for (std::int64_t distance = 1; distance < count; distance *= 2, from = 1 - from) {
      block.sync();
      // By selection, so that the pointers stay in registers.
      const float *product = from == 0 ? products[0] : products[1], *sum = from == 0 ? sums[0] : sums[1];
      float *next_product = from == 0 ? products[1] : products[0], *next_sum = from == 0 ? sums[1] : sums[0];
      for (std::int64_t i = block.warp(); i < count && there; i += block.warps()) {
        const std::int64_t at = i * size + column, before = at - distance * size;
        const float a = product[at], b = sum[at];
        next_product[at] = i < distance ? a : a * product[before];
        next_sum[at] = i < distance ? b : a * sum[before] + b;
      }
    }
  }
};

/// y[which][channel] (= or +=) Σ over rows of partials [rows, 4, D], in order.
struct SumPartials {
  static constexpr int threads = 64;
  const float* partials;
  float* y[4];  // null: not wanted
  std::int64_t rows, channels;
  bool add;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, 4 * channels, [&](std::int64_t i) {
      const std::int64_t which = i / channels, channel = i % channels;
      float* to = which == 0 ? y[0] : which == 1 ? y[1] : which == 2 ? y[2] : y[3];
      if (!to) return;
      float total = add ? to[channel] : 0.0f;
      for (std::int64_t row = 0; row < rows; ++row) total += partials[row * 4 * channels + i];
      to[channel] = total;
    });
  }
};

/// One row of the combined carries to where a summary goes.
struct TakeCarry {
  static constexpr int threads = 256;
  const float* from[2];
  float* to[2];
  std::int64_t size;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, size, [&](std::int64_t i) {
      to[0][i] = from[0][i];
      to[1][i] = from[1][i];
    });
  }
};

}  // namespace weft::cuda::scan
