// Elementwise recurrences; see core/kernels/scan.hpp.
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/kernels/scan_kernels.hpp"
#include "core/cuda/launch.hpp"
#include "core/cuda/scratch.hpp"
#include "core/kernels/check_scan.hpp"

namespace weft::cuda {
namespace {

template <class T>
scan::Problem<T> problem_of(const ScanSpec& spec, const ScanOperands& in, ScanShape shape, std::int64_t span) {
  scan::Problem<T> problem{};
  problem.u = in.u.as<T>();
  problem.u_sequence = in.u.strides[0];
  problem.u_step = in.u.strides[1];
  if (in.skip) {
    problem.skip = in.skip.as<T>();
    problem.skip_sequence = in.skip.strides[0];
    problem.skip_step = in.skip.strides[1];
  }
  problem.v_f = floats(in.v_f);
  problem.v_r = floats(in.v_r);
  problem.b_f = floats(in.b_f);
  problem.b_r = floats(in.b_r);
  problem.mask = floats(in.mask);
  problem.batch = shape.batch;
  problem.steps = shape.steps;
  problem.channels = shape.channels;
  problem.reverse_from = spec.reverse_from;
  problem.steps_before = spec.steps_before;
  problem.span = span == 0 ? shape.steps : span;
  problem.pieces = ceil_div(shape.steps, problem.span);
  problem.skip_scale = spec.skip_scale;
  problem.tanh = spec.tanh;
  return problem;
}

template <class T>
std::int64_t blocks_of(const scan::Problem<T>& problem) {
  return problem.pieces * problem.batch * problem.column_blocks();
}

/// body.template operator()<T, Cell>() for the cell.
template <class Body>
void for_cell(ScanCell cell, DType dtype, Body&& body) {
  dispatch_float(dtype, [&]<class T>() {
    switch (cell) {
      case ScanCell::sru: return body.template operator()<T, scan::SruCell<true>>();
      case ScanCell::sru_affine: return body.template operator()<T, scan::SruCell<false>>();
      case ScanCell::qrnn_f: return body.template operator()<T, scan::QrnnCell<false>>();
      case ScanCell::qrnn_fo: return body.template operator()<T, scan::QrnnCell<true>>();
      case ScanCell::mingru: return body.template operator()<T, scan::MinGruCell>();
      case ScanCell::minlstm: return body.template operator()<T, scan::MinLstmCell>();
      case ScanCell::mean: return body.template operator()<T, scan::MeanCell>();
    }
  });
}

/// The carries of `rows` rows: where summaries of the pieces go (rows 1 and on), and where the scan over them is at the end.
struct Carries {
  float *products[2] = {}, *sums[2] = {};
  std::int64_t rows = 0, size = 0;

  static std::size_t bytes(std::int64_t rows, std::int64_t size) {
    return static_cast<std::size_t>(4 * rows * size) * sizeof(float);
  }
  Carries(void* memory, std::int64_t rows_, std::int64_t size_) : rows(rows_), size(size_) {
    auto* at = static_cast<float*>(memory);
    for (int i = 0; i < 2; ++i) {
      products[i] = at + (2 * i) * rows * size;
      sums[i] = at + (2 * i + 1) * rows * size;
    }
  }
  void combine(ExecContext& exec, const float* initial) const {
    const scan::Combine kernel{{products[0], products[1]}, {sums[0], sums[1]}, initial, rows, size};
    launch(exec, ceil_div(size, warp_threads), kernel);
  }
  int end() const { return static_cast<int>(scan::Combine::levels(rows) % 2); }
};

void forward(ExecContext& exec, ScanSpec spec, ScanOperands in, View initial, MutView h, MutView states,
             MutView final) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_forward(spec, in, shape, initial, h, states, final);
  if (h.numel() == 0) return;
  const std::int64_t size = shape.batch * shape.channels;
  for_cell(spec.cell, in.u.dtype, [&]<class T, class Cell>() {
    const auto problem = problem_of<T>(spec, in, shape, spec.forward_span);
    const float* before = floats(initial);
    if (problem.pieces > 1) {
      const Carries carries(exec.scratch(Carries::bytes(problem.pieces, size)), problem.pieces, size);
      auto but_last = problem;
      but_last.pieces -= 1;
      launch(exec, blocks_of(but_last),
             scan::Summary<T, Cell>{problem, carries.products[0] + size, carries.sums[0] + size});
      carries.combine(exec, before);
      before = carries.sums[carries.end()];
    }
    launch(exec, blocks_of(problem), scan::Forward<T, Cell>{problem, before, h.as<T>(), floats(states), floats(final)});
  });
}

void take_last(ExecContext& exec, const Carries& carries, const MutView& product, const MutView& sum) {
  const std::int64_t last = (carries.rows - 1) * carries.size;
  const scan::TakeCarry kernel{{carries.products[carries.end()] + last, carries.sums[carries.end()] + last},
                               {floats(product), floats(sum)},
                               carries.size};
  launch(exec, blocks_for<scan::TakeCarry>(carries.size), kernel);
}

struct FoldMaps {
  static constexpr int threads = 256;
  const float* maps;
  float* state;
  std::int64_t count, from, to;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, count, [&](std::int64_t i) {
      float c = 0;
      for (std::int64_t part = from; part != to; part += from < to ? 1 : -1)
        c = maps[2 * part * count + i] * c + maps[(2 * part + 1) * count + i];
      state[i] = c;
    });
  }
};

void carry(ExecContext& exec, View maps, std::int64_t from, std::int64_t to, MutView state) {
  check_scan_carry(maps, from, to, state);
  const std::int64_t count = maps.shape[2];
  launch(exec, blocks_for<FoldMaps>(count), FoldMaps{floats(maps), floats(state), count, from, to});
}

void summary(ExecContext& exec, ScanSpec spec, ScanOperands in, MutView product, MutView sum) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_operands(spec, in, shape);
  check_scan_summary(shape, product, sum);
  WEFT_CHECK(traits_of(spec.cell).affine, "this cell is not affine in its state");
  if (in.u.numel() == 0) return;
  const std::int64_t size = shape.batch * shape.channels;
  for_cell(spec.cell, in.u.dtype, [&]<class T, class Cell>() {
    const auto problem = problem_of<T>(spec, in, shape, spec.forward_span);
    const Carries carries(exec.scratch(Carries::bytes(problem.pieces + 1, size)), problem.pieces + 1, size);
    launch(exec, blocks_of(problem),
           scan::Summary<T, Cell>{problem, carries.products[0] + size, carries.sums[0] + size});
    carries.combine(exec, nullptr);
    take_last(exec, carries, product, sum);
  });
}

template <class T>
scan::BackwardOperands<T> backward_operands(const ScanSpec& spec, const ScanOperands& in, ScanShape shape,
                                            const View& states, const View& dh) {
  scan::BackwardOperands<T> operands{};
  operands.problem = problem_of<T>(spec, in, shape, spec.backward_span);
  operands.states = floats(states);
  operands.dh = dh.as<T>();
  return operands;
}

/// Summaries of all pieces but the first, from the end, behind the carries' first row.
template <class T, class Cell>
void summarize(ExecContext& exec, scan::BackwardOperands<T> operands, const Carries& carries) {
  operands.products = carries.products[0] + carries.size;
  operands.sums = carries.sums[0] + carries.size;
  using Kernel = scan::Backward<scan::Wanted::summary, T, Cell>;
  launch(exec, blocks_of(operands.problem), Kernel{operands}, Kernel::shared_bytes);
}

void backward(ExecContext& exec, ScanSpec spec, ScanOperands in, View states, View dh, View dfinal, ScanGradients out) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_backward(spec, in, shape, states, dh, dfinal, out);
  if (dh.numel() == 0) return;
  const std::int64_t size = shape.batch * shape.channels;
  const bool parameters = in.b_f || in.v_f;
  for_cell(spec.cell, in.u.dtype, [&]<class T, class Cell>() {
    auto operands = backward_operands<T>(spec, in, shape, states, dh);
    const scan::Problem<T>& problem = operands.problem;
    const std::int64_t rows = problem.pieces * shape.batch;
    ScratchParts parts;
    // The first piece is summarised too: its row is behind those that are combined, and not read.
    const std::size_t carries_at = parts.add(problem.pieces > 1 ? Carries::bytes(problem.pieces + 1, size) : 0);
    const std::size_t partials_at =
        parts.add(parameters ? static_cast<std::size_t>(rows * 4 * shape.channels) * sizeof(float) : 0);
    char* scratch = static_cast<char*>(exec.scratch(parts.bytes() + 1));
    operands.dfinal = floats(dfinal);
    if (problem.pieces > 1) {
      const Carries carries(scratch + carries_at, problem.pieces + 1, size);
      summarize<T, Cell>(exec, operands, carries);
      carries.combine(exec, floats(dfinal));
      operands.dfinal = carries.sums[carries.end()];
    }
    operands.du = out.du.template as<T>();
    operands.du_sequence = out.du.strides[0];
    operands.du_step = out.du.strides[1];
    if (in.skip) {
      operands.dskip = out.dskip.template as<T>();
      operands.dskip_sequence = out.dskip.strides[0];
      operands.dskip_step = out.dskip.strides[1];
    }
    operands.initial = floats(out.initial);
    if (parameters) operands.partials = reinterpret_cast<float*>(scratch + partials_at);
    using Kernel = scan::Backward<scan::Wanted::gradients, T, Cell>;
    launch(exec, blocks_of(problem), Kernel{operands}, Kernel::shared_bytes);
    if (!parameters) return;
    const scan::SumPartials sums{operands.partials,
                                 {floats(out.dv_f), floats(out.dv_r), floats(out.db_f), floats(out.db_r)},
                                 rows,
                                 shape.channels,
                                 out.write == Write::add};
    launch(exec, blocks_for<scan::SumPartials>(4 * shape.channels), sums);
  });
}

void backward_summary(ExecContext& exec, ScanSpec spec, ScanOperands in, View states, View dh, MutView product,
                      MutView sum) {
  const ScanShape shape = scan_shape(spec, in);
  check_scan_gradients(spec, in, shape, states, dh);
  check_scan_summary(shape, product, sum);
  if (dh.numel() == 0) return;
  const std::int64_t size = shape.batch * shape.channels;
  for_cell(spec.cell, in.u.dtype, [&]<class T, class Cell>() {
    const auto operands = backward_operands<T>(spec, in, shape, states, dh);
    const std::int64_t rows = operands.problem.pieces + 1;
    const Carries carries(exec.scratch(Carries::bytes(rows, size)), rows, size);
    summarize<T, Cell>(exec, operands, carries);
    carries.combine(exec, nullptr);
    take_last(exec, carries, product, sum);
  });
}

}  // namespace

void bind_scan(KernelTable& table) {
  table.scan.forward.bind(forward);
  table.scan.summary.bind(summary);
  table.scan.backward.bind(backward);
  table.scan.backward_summary.bind(backward_summary);
  table.scan.carry.bind(carry);
}

}  // namespace weft::cuda
