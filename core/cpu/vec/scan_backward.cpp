// Elementwise recurrences, backward: chunk by chunk from the end. A chunk's states and gates are recomputed from the state
// before it and kept near; then its steps go backward.
#include "core/cpu/vec/functions.hpp"
#include "core/cpu/vec/scan.hpp"

namespace weft::cpu::WEFT_ISA {
namespace scan {
namespace {

template <class Cell>
struct Kept {
  Vec before;
  typename Cell::Gates gates;
};

enum class Wanted { gradients, summary };

template <Wanted wanted, class T, class Cell>
void backward(const ScanArgs& args, const ScanTask& task) {
  static_assert(sizeof(Kept<Cell>) <= scan_kept_floats * sizeof(Vec));
  const Walk<T> walk(args, task);
  const std::int64_t begin = task.channel_begin, end = task.channel_end;
  const std::int64_t vectors = (end - begin + lanes - 1) / lanes;
  auto* kept = static_cast<Kept<Cell>*>(task.kept);
  for (std::int64_t chunk = (task.step_end - 1) / args.chunk; chunk * args.chunk >= task.step_begin; --chunk) {
    const std::int64_t first = chunk * args.chunk, last = smaller(task.step_end, first + args.chunk);
    const float* states = walk.state_row(chunk);
    for (std::int64_t step = first; step < last; ++step) {
      const Columns<T> x = walk.columns(step);
      Kept<Cell>* row = kept + (step - first) * vectors;
      for_vectors(begin, end, [&](std::int64_t i, auto n) {
        Kept<Cell>* at = row + (i - begin) / lanes;
        if (step == first) at->before = load_n(states + i, n);
        at->gates = Cell::open(x, i, n, at->before);
        if (step + 1 < last)
          at[vectors].before = fma(Cell::keep(x, i, n, at->gates), at->before, Cell::add(x, i, n, at->gates));
      });
    }
    for (std::int64_t step = last - 1; step >= first; --step) {
      const Columns<T> x = walk.columns(step);
      const T* dh_row = walk.row(static_cast<const T*>(args.dh), step);
      ColumnGradients<T> to{};
      if constexpr (wanted == Wanted::gradients) {
        const std::int64_t at = walk.token(step), b = task.sequence;
        to.width = args.channels;
        to.du = static_cast<T*>(args.du) + b * args.du_strides[0] + at * args.du_strides[1];
        if (args.dskip) to.dskip = static_cast<T*>(args.dskip) + b * args.dskip_strides[0] + at * args.dskip_strides[1];
        to.partials = task.partials;
      }
      const Kept<Cell>* row = kept + (step - first) * vectors;
      for_vectors(begin, end, [&](std::int64_t i, auto n) {
        const Kept<Cell>& at = row[(i - begin) / lanes];
        const Vec dh = load_n(dh_row + i, n);
        const Vec c = fma(Cell::keep(x, i, n, at.gates), at.before, Cell::add(x, i, n, at.gates));
        const Vec gc = fma(dh, Cell::slope(x, i, n, at.gates, c), load_n(task.state + i, n));
        const Vec through = Cell::through(x, i, n, at.gates, at.before);
        store_n(task.state + i, n, fma(through, gc, Cell::beside(x, i, n, at.gates, c, dh)));
        if constexpr (wanted == Wanted::gradients)
          Cell::close(x, to, i, n, at.gates, at.before, c, gc, dh);
        else
          store_n(task.product + i, n, through * load_n(task.product + i, n));
      });
    }
  }
}

}  // namespace
}  // namespace scan

void scan_backward(const ScanArgs& args, const ScanTask& task) {
  scan::for_cell(args, [&]<class T, class Cell>() { scan::backward<scan::Wanted::gradients, T, Cell>(args, task); });
}

void scan_backward_summary(const ScanArgs& args, const ScanTask& task) {
  scan::for_cell(args, [&]<class T, class Cell>() { scan::backward<scan::Wanted::summary, T, Cell>(args, task); });
}

}  // namespace weft::cpu::WEFT_ISA
