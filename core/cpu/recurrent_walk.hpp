// How the steps of a recurrence go over threads. Each part of the batch and of the units belongs to one thread; parts that
// share rows meet after each step. A step is its product with R and, piece by piece while the sums are near, the cells.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "core/cpu/parallel.hpp"
#include "core/cpu/spin_barrier.hpp"
#include "core/cpu/state.hpp"
#include "core/cpu/step_product.hpp"
#include "core/cpu/vector.hpp"
#include "core/kernels/check.hpp"

namespace weft::cpu {

struct RecurrentTables {
  const RecurrentCells& cells;
  const MatrixKernels& matrix;
};

/// By oneDNN where the backend has it for the dtype, else by the vector kernels.
std::unique_ptr<StepProduct> make_steps(const RecurrentTables& tables, ExecContext& exec, const StepShape& shape,
                                        std::int64_t steps);

/// walk.begin(part), then walk.step(part, 0), walk.step(part, 1), …, then walk.end(part); parts that share rows wait for
/// each other between any two of them.
template <class Walk>
void run_parts(const StepSplit& split, std::int64_t steps, Walk&& walk) {
  const int parts = split.parts();
  const auto in_turn = [&] {
    for (int part = 0; part < parts; ++part) walk.begin(part);
    for (std::int64_t i = 0; i < steps; ++i)
      for (int part = 0; part < parts; ++part) walk.step(part, i);
    for (int part = 0; part < parts; ++part) walk.end(part);
  };
  if (parts == 1) return in_turn();
  std::deque<SpinBarrier> barriers;
  for (int i = 0; i < split.row_parts; ++i) barriers.emplace_back(split.unit_parts);
#pragma omp parallel num_threads(parts)
  {
    const int part = omp_get_thread_num();
    if (omp_get_num_threads() == parts) {
      SpinBarrier& barrier = barriers[static_cast<std::size_t>(part / split.unit_parts)];
      walk.begin(part);
      barrier.wait();
      for (std::int64_t i = 0; i < steps; ++i) {
        walk.step(part, i);
        barrier.wait();
      }
      walk.end(part);
    } else if (part == 0) {
      in_turn();  // fewer threads than asked for would wait for the others without an end
    }
  }
}

template <class AnyView>
auto* element(const AnyView& view, std::int64_t index) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const char, char>;
  auto* base = static_cast<Byte*>(view.data);
  return base ? base + index * static_cast<std::int64_t>(size_of(view.dtype)) : nullptr;
}

inline void copy_state(const View& from, float* to, std::int64_t hidden, Range rows, Range units) {
  const auto count = static_cast<std::size_t>(units.size());
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    float* out = to + row * hidden + units.begin;
    if (from)
      std::memmove(out, floats(from) + row * hidden + units.begin, count * sizeof(float));
    else
      std::fill_n(out, count, 0.0f);
  }
}

/// What both directions share.
class RecurrentWalk {
 public:
  RecurrentWalk(const RecurrentTables& tables, const RecurrentSizes& sizes, StepProduct& product)
      : cells_(tables.cells), sizes_(sizes), product_(product) {}

 protected:
  /// body(piece of the part's units, sums) with sums of product `turn`, or none.
  template <class Body>
  void for_pieces(int part, int turn, bool multiplied, Body&& body) const {
    const Range units = product_.units_of(part);
    for (std::int64_t unit = units.begin; unit < units.end; unit += product_.piece_units()) {
      const Range piece{unit, std::min(units.end, unit + product_.piece_units())};
      body(piece, multiplied ? product_.run(part, piece, turn) : StepSums{});
    }
  }
  template <class Body>
  void for_groups(int part, Body&& body) const {
    for (std::int64_t group = 0; group < product_.groups(part); ++group) body(group, product_.group_rows(part, group));
  }
  StepSums sums_of_group(StepSums sums, int part, Range rows) const {
    if (sums.data) sums.data += (rows.begin - product_.rows_of(part).begin) * sums.row_stride;
    return sums;
  }
  std::int64_t unit_index(std::int64_t row, std::int64_t step) const {
    return (row * sizes_.steps + step) * sizes_.hidden;
  }
  template <class Args>
  void set_sizes(Args& args, Range rows, Range piece) const {
    args.rows = rows.size();
    args.begin = piece.begin;
    args.end = piece.end;
    args.hidden = sizes_.hidden;
    args.gate_row = sizes_.steps * sizes_.gate_width();
    args.hidden_row = sizes_.steps * sizes_.hidden;
  }

  const RecurrentCells& cells_;
  RecurrentSizes sizes_;
  StepProduct& product_;
};

class ForwardWalk : public RecurrentWalk {
 public:
  ForwardWalk(const RecurrentTables& tables, const RecurrentSizes& sizes, StepProduct& product,
              const RecurrentForward& job)
      : RecurrentWalk(tables, sizes, product), job_(job), elem_(elem_of(View(job.y))) {}

  void begin(int part) const {
    const Range units = product_.units_of(part);
    if (job_.h_first)
      for_groups(part, [&](std::int64_t group, Range rows) {
        cells_.operand(elem_, Elem::f32, floats(job_.h_first) + rows.begin * sizes_.hidden, sizes_.hidden, rows.size(),
                       units.begin, units.end, product_.operand(part, group, 0));
      });
    begin_carry(part);
  }

  void step(int part, std::int64_t t) const {
    const int turn = static_cast<int>(t % 2);
    for_pieces(part, turn, t > 0 || job_.h_first, [&](Range piece, const StepSums& sums) {
      for_groups(part, [&](std::int64_t group, Range rows) {
        CellForwardArgs args{};
        set_sizes(args, rows, piece);
        args.elem = elem_;
        args.sums = sums_of_group(sums, part, rows);
        const std::int64_t at = unit_index(rows.begin, t);
        args.projected = element(job_.projected, at * sizes_.gates);
        args.hidden_bias = floats(job_.hidden_bias);
        args.gates = element(job_.gates, at * sizes_.gates);
        args.candidate = element(job_.candidate, at);
        args.cells = job_.cells ? floats(job_.cells) + at : nullptr;
        args.y = element(job_.y, at);
        float* h_last = floats(job_.h_last) + rows.begin * sizes_.hidden;
        if (job_.cell == RecurrentCell::gru) args.carry = h_last;
        if (job_.cell == RecurrentCell::lstm) args.carry = floats(job_.c_last) + rows.begin * sizes_.hidden;
        if (job_.cell != RecurrentCell::gru && t + 1 == sizes_.steps) args.last = h_last;
        args.next = product_.operand(part, group, 1 - turn);
        cell()(args);
      });
    });
  }

  void end(int) const {}

 protected:
  void begin_carry(int part) const {
    const Range rows = product_.rows_of(part), units = product_.units_of(part);
    if (job_.cell == RecurrentCell::lstm) copy_state(job_.c_first, floats(job_.c_last), sizes_.hidden, rows, units);
    if (job_.cell == RecurrentCell::gru) copy_state(job_.h_first, floats(job_.h_last), sizes_.hidden, rows, units);
  }

  const RecurrentForward& job_;
  Elem elem_;

 private:
  auto cell() const -> void (*)(const CellForwardArgs&) {
    switch (job_.cell) {
      case RecurrentCell::elman: return cells_.elman;
      case RecurrentCell::lstm: return cells_.lstm;
      case RecurrentCell::gru: return cells_.gru;
    }
    fail("an unknown recurrent cell");
  }
};

class BackwardWalk : public RecurrentWalk {
 public:
  BackwardWalk(const RecurrentTables& tables, const RecurrentSizes& sizes, StepProduct& product,
               const RecurrentBackward& job, float* carry)
      : RecurrentWalk(tables, sizes, product), job_(job), elem_(elem_of(job.dy)), carry_(carry) {}

  void begin(int part) const {
    copy_state(job_.cell == RecurrentCell::lstm ? job_.dc_last : View{}, carry_, sizes_.hidden, product_.rows_of(part),
               product_.units_of(part));
  }

  void step(int part, std::int64_t i) const {
    const std::int64_t t = sizes_.steps - 1 - i;
    const int turn = static_cast<int>(i % 2);
    for_pieces(part, turn, i > 0, [&](Range piece, StepSums sums) {
      if (i == 0 && job_.dh_last)
        sums = {floats(job_.dh_last) + product_.rows_of(part).begin * sizes_.hidden + piece.begin, sizes_.hidden, 0};
      cells(part, t, piece, sums, 1 - turn);
    });
  }

  /// Gradients of the state that the first step began with.
  void end(int part) const {
    const Range rows = product_.rows_of(part), units = product_.units_of(part);
    if (job_.dc_first)
      copy_state({carry_, job_.dc_first.shape, DType::f32}, floats(job_.dc_first), sizes_.hidden, rows, units);
    if (!job_.dh_first) return;
    const bool carried = job_.cell == RecurrentCell::gru;
    for_pieces(part, static_cast<int>(sizes_.steps % 2), true, [&](Range piece, const StepSums& sums) {
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        const float* sum = sums.data + (row - rows.begin) * sums.row_stride;
        const std::int64_t at = row * sizes_.hidden + piece.begin;
        for (std::int64_t i = 0; i < piece.size(); ++i)
          floats(job_.dh_first)[at + i] = sum[i] + (carried ? carry_[at + i] : 0.0f);
      }
    });
  }

 protected:
  /// The cells of step t for some units of the part, to the operand of `next_turn`; the first sum is that of the piece.
  void cells(int part, std::int64_t t, Range piece, const StepSums& sums, int next_turn) const {
    for_groups(part, [&](std::int64_t group, Range rows) {
      CellBackwardArgs args{};
      set_sizes(args, rows, piece);
      args.elem = elem_;
      args.sums = sums_of_group(sums, part, rows);
      const std::int64_t at = unit_index(rows.begin, t);
      args.gates = element(job_.gates, at * sizes_.gates);
      args.candidate = element(job_.candidate, at);
      args.cells = job_.cells ? floats(job_.cells) + at : nullptr;
      set_before(args, rows.begin, t);
      args.dy = element(job_.dy, at);
      args.carry = carry_ ? carry_ + rows.begin * sizes_.hidden : nullptr;
      args.dgates = element(job_.dgates, at * sizes_.gates);
      args.dhidden = element(job_.dhidden, at * sizes_.gates);
      args.next = product_.operand(part, group, next_turn);
      cell()(args);
    });
  }

  const RecurrentBackward& job_;
  Elem elem_;
  float* carry_;

 private:
  void set_before(CellBackwardArgs& args, std::int64_t row, std::int64_t t) const {
    if (job_.cell == RecurrentCell::elman) return;
    const bool lstm = job_.cell == RecurrentCell::lstm;
    const View& inside = lstm ? job_.cells : job_.y;
    const View& first = lstm ? job_.c_first : job_.h_first;
    args.before = t > 0 ? element(inside, unit_index(row, t - 1)) : element(first, row * sizes_.hidden);
    args.before_elem = t > 0 && !lstm ? elem_ : Elem::f32;
    args.before_row = t > 0 ? args.hidden_row : sizes_.hidden;
  }
  auto cell() const -> void (*)(const CellBackwardArgs&) {
    switch (job_.cell) {
      case RecurrentCell::elman: return cells_.elman_backward;
      case RecurrentCell::lstm: return cells_.lstm_backward;
      case RecurrentCell::gru: return cells_.gru_backward;
    }
    fail("an unknown recurrent cell");
  }
};

/// The slots of one step.
void run_forward_step(const RecurrentTables& tables, ExecContext& exec, const RecurrentForward& job, std::int64_t step,
                      const View& before);
void run_backward_step(const RecurrentTables& tables, ExecContext& exec, const RecurrentBackward& job,
                       std::int64_t step, const View& dh, const MutView& carry, const MutView& dh_before);

}  // namespace weft::cpu
