// Elementwise recurrences, forward: a step's row at a time, so that memory streams and neighbouring channels' chains overlap.
#include "core/cpu/vec/functions.hpp"
#include "core/cpu/vec/scan.hpp"

namespace weft::cpu::WEFT_ISA {
namespace scan {
namespace {

template <class T, class Cell>
void forward(const ScanArgs& args, const ScanTask& task) {
  const Walk<T> walk(args, task);
  for (std::int64_t step = task.step_begin; step < task.step_end; ++step) {
    if (args.states && step % args.chunk == 0) {
      float* to = walk.state_row(step / args.chunk);
      for_vectors(task.channel_begin, task.channel_end,
                  [&](std::int64_t i, auto n) { store_n(to + i, n, load_n(task.state + i, n)); });
    }
    const Columns<T> x = walk.columns(step);
    T* h = walk.row(static_cast<T*>(args.h), step);
    for_vectors(task.channel_begin, task.channel_end, [&](std::int64_t i, auto n) {
      const Vec before = load_n(task.state + i, n);
      const auto gates = Cell::open(x, i, n, before);
      const Vec c = fma(Cell::keep(x, i, n, gates), before, Cell::add(x, i, n, gates));
      store_n(task.state + i, n, c);
      store_n(h + i, n, Cell::output(x, i, n, gates, c));
    });
  }
}

template <class T, class Cell>
void summary(const ScanArgs& args, const ScanTask& task) {
  const Walk<T> walk(args, task);
  for (std::int64_t step = task.step_begin; step < task.step_end; ++step) {
    const Columns<T> x = walk.columns(step);
    for_vectors(task.channel_begin, task.channel_end, [&](std::int64_t i, auto n) {
      const auto gates = Cell::open(x, i, n, Vec{});
      const Vec keep = Cell::keep(x, i, n, gates);
      store_n(task.state + i, n, fma(keep, load_n(task.state + i, n), Cell::add(x, i, n, gates)));
      store_n(task.product + i, n, keep * load_n(task.product + i, n));
    });
  }
}

}  // namespace
}  // namespace scan

void scan_forward(const ScanArgs& args, const ScanTask& task) {
  scan::for_cell(args, [&]<class T, class Cell>() { scan::forward<T, Cell>(args, task); });
}

void scan_summary(const ScanArgs& args, const ScanTask& task) {
  scan::for_cell(args, [&]<class T, class Cell>() { scan::summary<T, Cell>(args, task); });
}

}  // namespace weft::cpu::WEFT_ISA
