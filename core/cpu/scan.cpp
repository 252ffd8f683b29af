// Tasks are (piece of the sequence, sequence, tile of channels). A tile is as wide as the threads allow, because rows that are
// read whole stream: that gains more than a backward pass whose chunk stays in the second-level cache.
#include <algorithm>
#include <cstring>

#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"
#include "core/kernels/check_scan.hpp"

namespace weft::cpu {
namespace {

constexpr std::int64_t granule = 64, widest = 1024;

constexpr std::int64_t up(std::int64_t count, std::int64_t to) { return (count + to - 1) / to * to; }

/// The tiles of all sequences. None holds channels of both directions.
class Tiling {
 public:
  Tiling(ScanShape shape, std::int64_t reverse_from, int threads)
      : shape_(shape), border_(std::min(reverse_from, shape.channels)) {
    const std::int64_t even = shape.batch * shape.channels / (4 * std::int64_t{threads});
    width_ = std::clamp(up(even, granule), granule, widest);
    forward_ = (border_ + width_ - 1) / width_;
    each_ = forward_ + (shape.channels - border_ + width_ - 1) / width_;
  }
  std::int64_t count() const { return shape_.batch * each_; }
  std::int64_t width() const { return width_; }
  /// Sequence, channels and direction of a tile.
  ScanTask at(std::int64_t tile) const {
    ScanTask task{};
    task.sequence = tile / each_;
    const std::int64_t in_row = tile % each_;
    task.reverse = in_row >= forward_;
    task.channel_begin = task.reverse ? border_ + (in_row - forward_) * width_ : in_row * width_;
    task.channel_end = std::min(task.reverse ? shape_.channels : border_, task.channel_begin + width_);
    return task;
  }

 private:
  ScanShape shape_;
  std::int64_t border_, width_ = 0, forward_ = 0, each_ = 0;
};

void take_strides(const View& view, std::int64_t (&strides)[2]) {
  strides[0] = view.strides[0];
  strides[1] = view.strides[1];
}

ScanArgs common_args(const ScanSpec& spec, const ScanOperands& in, ScanShape shape) {
  static_assert(static_cast<int>(ScanKind::mean) == static_cast<int>(ScanCell::mean));
  ScanArgs args{};
  args.cell = static_cast<ScanKind>(spec.cell);
  args.elem = elem_of(in.u);
  args.tanh = spec.tanh;
  args.steps = shape.steps;
  args.channels = shape.channels;
  args.chunk = scan_chunk;
  args.steps_before = spec.steps_before;
  args.skip_scale = spec.skip_scale;
  args.u = in.u.data;
  take_strides(in.u, args.u_strides);
  args.skip = in.skip.data;
  if (in.skip) take_strides(in.skip, args.skip_strides);
  args.v_f = floats(in.v_f);
  args.v_r = floats(in.v_r);
  args.b_f = floats(in.b_f);
  args.b_r = floats(in.b_r);
  args.mask = floats(in.mask);
  return args;
}

/// The pieces of a pass, in the order in which the state goes through them.
struct Pieces {
  std::int64_t steps, span, count;
  bool backward;

  Pieces(std::int64_t steps_, std::int64_t span_, bool backward_)
      : steps(steps_), span(span_ == 0 ? steps_ : span_), count((steps + span - 1) / span), backward(backward_) {}
  void place(ScanTask& task, std::int64_t piece) const {
    const std::int64_t from = backward ? count - 1 - piece : piece;
    task.step_begin = from * span;
    task.step_end = std::min(steps, task.step_begin + span);
  }
};

/// What runs on one thread's memory.
using TaskFunction = void (*)(const ScanArgs&, const ScanTask&);

struct Plan {
  const ScanArgs& args;
  const Tiling& tiling;
  const Pieces& pieces;
  std::int64_t state_size;  ///< B·D
  int threads;
  char* kept = nullptr;  ///< threads × kept_bytes
  std::int64_t kept_bytes = 0;

  void run(std::int64_t first_piece, std::int64_t last_piece, TaskFunction function, auto&& prepare) const {
    for_tasks(threads, (last_piece - first_piece) * tiling.count(), [&](std::int64_t i, int thread) {
      ScanTask task = tiling.at(i % tiling.count());
      const std::int64_t piece = first_piece + i / tiling.count();
      pieces.place(task, piece);
      if (kept) task.kept = kept + thread * kept_bytes;
      prepare(task, piece);
      function(args, task);
    });
  }
  std::int64_t row(const ScanTask& task) const { return task.sequence * args.channels; }
};

/// Copies a tile's channels of a state; from null: `otherwise`.
void set_tile(const ScanTask& task, std::int64_t row, const float* from, float otherwise, float* to) {
  const auto begin = row + task.channel_begin, count = task.channel_end - task.channel_begin;
  if (from)
    std::copy_n(from + begin, count, to + begin);
  else
    std::fill_n(to + begin, count, otherwise);
}

/// Inclusive scan over the first dim of (products, sums) [count, size] by doubling distances (Kogge & Stone 1973).
void combine(float* products, float* sums, std::int64_t count, std::int64_t size, int threads) {
  for_ranges(threads, size, granule, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t distance = 1; distance < count; distance *= 2)
      for (std::int64_t p = count - 1; p >= distance; --p) {
        float *product = products + p * size, *sum = sums + p * size;
        const float *before_product = product - distance * size, *before_sum = sum - distance * size;
        for (std::int64_t i = begin; i < end; ++i) {
          sum[i] += product[i] * before_sum[i];
          product[i] *= before_product[i];
        }
      }
  });
}

/// Leaves in sums [count, size] the state before each of the first `count` pieces, where the state before all is `initial`
/// (null: zeros), and in products what it was multiplied with.
void carry(const Plan& plan, const float* initial, std::int64_t count, TaskFunction summary, float* products,
           float* sums) {
  const std::int64_t size = plan.state_size;
  std::fill_n(products, size, 1.0f);
  if (initial)
    std::copy_n(initial, size, sums);
  else
    std::fill_n(sums, size, 0.0f);
  plan.run(0, count - 1, summary, [&](ScanTask& task, std::int64_t piece) {
    float* product = products + (piece + 1) * size;
    float* sum = sums + (piece + 1) * size;
    set_tile(task, plan.row(task), nullptr, 1, product);
    set_tile(task, plan.row(task), nullptr, 0, sum);
    task.product = product + plan.row(task);
    task.state = sum + plan.row(task);
  });
  combine(products, sums, count, size, plan.threads);
}

/// The pass itself: `last` gets the state after all pieces.
template <class Prepare>
void pass(const Plan& plan, const float* initial, TaskFunction summary, TaskFunction function, float* carries,
          float* last, Prepare&& prepare) {
  const std::int64_t size = plan.state_size, pieces = plan.pieces.count;
  if (pieces > 1) carry(plan, initial, pieces, summary, carries, carries + pieces * size);
  plan.run(0, pieces, function, [&](ScanTask& task, std::int64_t piece) {
    float* state = carries + (pieces + piece) * size;
    if (piece + 1 == pieces) {
      set_tile(task, plan.row(task), pieces > 1 ? state : initial, 0, last);
      state = last;
    }
    task.state = state + plan.row(task);
    prepare(task, piece);
  });
}

std::int64_t carries_of(const Pieces& pieces, std::int64_t size) {
  return pieces.count > 1 ? up(2 * pieces.count * size, granule) : 0;
}

int threads_of(const ExecContext& exec, const ScanOperands& in, const Tiling& tiling, const Pieces& pieces) {
  return threads_for(exec, tiling.count() * pieces.count, static_cast<std::int64_t>(2 * in.u.bytes()));
}

template <const VecKernels& vec>
void forward(ExecContext& exec, ScanSpec spec, ScanOperands in, View initial, MutView h, MutView states,
             MutView final) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_forward(spec, in, shape, initial, h, states, final);
  if (h.numel() == 0) return;
  ScanArgs args = common_args(spec, in, shape);
  args.h = h.data;
  args.states = floats(states);
  const Pieces pieces(shape.steps, spec.forward_span, false);
  const Tiling tiling(shape, spec.reverse_from, exec.threads());
  const std::int64_t size = shape.batch * shape.channels;
  auto* carries =
      static_cast<float*>(exec.scratch(static_cast<std::size_t>(carries_of(pieces, size)) * sizeof(float) + 1));
  const Plan plan{args, tiling, pieces, size, threads_of(exec, in, tiling, pieces)};
  pass(plan, floats(initial), vec.scan_summary, vec.scan_forward, carries, floats(final),
       [](ScanTask&, std::int64_t) {});
}

void fold_maps(ExecContext&, View maps, std::int64_t from, std::int64_t to, MutView state) {
  check_scan_carry(maps, from, to, state);
  const std::int64_t count = maps.shape[2];
  float* c = floats(state);
  std::fill_n(c, count, 0.0f);
  for (std::int64_t part = from; part != to; part += from < to ? 1 : -1) {
    const float* product = floats(maps) + 2 * part * count;
    const float* sum = product + count;
    for (std::int64_t i = 0; i < count; ++i) c[i] = product[i] * c[i] + sum[i];
  }
}

template <const VecKernels& vec>
void summary(ExecContext& exec, ScanSpec spec, ScanOperands in, MutView product, MutView sum) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_operands(spec, in, shape);
  check_scan_summary(shape, product, sum);
  WEFT_CHECK(traits_of(spec.cell).affine, "this cell is not affine in its state");
  if (in.u.numel() == 0) return;
  const ScanArgs args = common_args(spec, in, shape);
  const Pieces pieces(shape.steps, spec.forward_span, false);
  const Tiling tiling(shape, spec.reverse_from, exec.threads());
  const std::int64_t size = shape.batch * shape.channels, rows = pieces.count + 1;
  auto* products = static_cast<float*>(exec.scratch(static_cast<std::size_t>(2 * rows * size) * sizeof(float)));
  float* sums = products + rows * size;
  const Plan plan{args, tiling, pieces, size, threads_of(exec, in, tiling, pieces)};
  carry(plan, nullptr, rows, vec.scan_summary, products, sums);
  std::copy_n(products + (rows - 1) * size, size, floats(product));
  std::copy_n(sums + (rows - 1) * size, size, floats(sum));
}

/// Scratch of a backward pass: carries, then what each thread keeps, then `more` floats.
struct BackwardScratch {
  std::int64_t carries, kept;
  float* base;

  BackwardScratch(ExecContext& exec, std::int64_t carries_, std::int64_t width, int threads, std::int64_t more)
      : carries(up(carries_, granule)), kept(scan_kept_floats * scan_chunk * up(width, 16)) {
    const auto floats_wanted = static_cast<std::size_t>(carries + threads * kept + more);
    base = static_cast<float*>(exec.scratch(floats_wanted * sizeof(float)));
  }
  void give(Plan& plan) const {
    plan.kept = reinterpret_cast<char*>(base + carries);
    plan.kept_bytes = kept * static_cast<std::int64_t>(sizeof(float));
  }
  float* more(int threads) const { return base + carries + threads * kept; }
};

template <const VecKernels& vec>
void backward(ExecContext& exec, ScanSpec spec, ScanOperands in, View states, View dh, View dfinal, ScanGradients out) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_backward(spec, in, shape, states, dh, dfinal, out);
  const std::int64_t channels = shape.channels, size = shape.batch * channels;
  const bool sums = in.b_f || in.v_f;
  if (dh.numel() == 0) return;
  ScanArgs args = common_args(spec, in, shape);
  args.states = const_cast<float*>(floats(states));
  args.dh = dh.data;
  args.du = out.du.data;
  take_strides(out.du, args.du_strides);
  args.dskip = in.skip ? out.dskip.data : nullptr;
  if (args.dskip) take_strides(out.dskip, args.dskip_strides);
  const Pieces pieces(shape.steps, spec.backward_span, true);
  const Tiling tiling(shape, spec.reverse_from, exec.threads());
  Plan plan{args, tiling, pieces, size, threads_of(exec, in, tiling, pieces)};
  const std::int64_t partial_rows = sums ? pieces.count * shape.batch : 0;
  const BackwardScratch scratch(exec, carries_of(pieces, size), tiling.width(), plan.threads,
                                up(size, granule) + partial_rows * 4 * channels);
  scratch.give(plan);
  float* first = out.initial ? floats(out.initial) : scratch.more(plan.threads);
  float* partials = scratch.more(plan.threads) + up(size, granule);
  pass(plan, floats(dfinal), vec.scan_backward_summary, vec.scan_backward, scratch.base, first,
       [&](ScanTask& task, std::int64_t piece) {
         if (!sums) return;
         task.partials = partials + (piece * shape.batch + task.sequence) * 4 * channels;
         for (int which = 0; which < 4; ++which)
           std::fill(task.partials + which * channels + task.channel_begin,
                     task.partials + which * channels + task.channel_end, 0.0f);
       });
  const MutView parameters[4] = {out.dv_f, out.dv_r, out.db_f, out.db_r};
  for (int which = 0; which < 4; ++which)
    if (sums && parameters[which])
      vec.sum_rows(partials + which * channels, partial_rows, 4 * channels, out.write == Write::add,
                   floats(parameters[which]), 0, channels);
}

template <const VecKernels& vec>
void backward_summary(ExecContext& exec, ScanSpec spec, ScanOperands in, View states, View dh, MutView product,
                      MutView sum) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_gradients(spec, in, shape, states, dh);
  check_scan_summary(shape, product, sum);
  if (dh.numel() == 0) return;
  ScanArgs args = common_args(spec, in, shape);
  args.states = const_cast<float*>(floats(states));
  args.dh = dh.data;
  const Pieces pieces(shape.steps, spec.backward_span, true);
  const Tiling tiling(shape, spec.reverse_from, exec.threads());
  const std::int64_t size = shape.batch * shape.channels, rows = pieces.count + 1;
  Plan plan{args, tiling, pieces, size, threads_of(exec, in, tiling, pieces)};
  const BackwardScratch scratch(exec, 2 * rows * size, tiling.width(), plan.threads, 0);
  scratch.give(plan);
  carry(plan, nullptr, rows, vec.scan_backward_summary, scratch.base, scratch.base + rows * size);
  std::copy_n(scratch.base + (rows - 1) * size, size, floats(product));
  std::copy_n(scratch.base + (2 * rows - 1) * size, size, floats(sum));
}

}  // namespace

void bind_scan(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.scan.forward.bind(forward<vec>);
    table.scan.summary.bind(summary<vec>);
    table.scan.backward.bind(backward<vec>);
    table.scan.backward_summary.bind(backward_summary<vec>);
    table.scan.carry.bind(fold_maps);
  });
}

}  // namespace weft::cpu
