// One time step of the cells of core/kernels/recurrent.hpp, after its product with the recurrent weight. As kernels.hpp
// this page holds data alone.
#pragma once
#include <cstdint>

#include "core/cpu/vec/kernels.hpp"

namespace weft::cpu {

/// f32 [rows] of gates, `gate_stride` apart, of units from the step's first on; no data: zeros.
struct StepSums {
  const float* data = nullptr;
  std::int64_t row_stride = 0, gate_stride = 0;
};

/// The left operand of the next step's product: element k of a row at data[row·row_stride + k/16·block_stride + k%16],
/// with k = gate·gate_step + unit.
struct StepOperand {
  void* data = nullptr;
  Elem elem = Elem::f32;
  std::int64_t row_stride = 0, block_stride = 16, gate_step = 0;
};

/// `rows` sequences and units [begin, end) at one step. Pointers are at the first row's unit 0 of that step; rows lie
/// gate_row apart in what has gates, hidden_row in what has units, and `hidden` in states.
struct CellForwardArgs {
  Elem elem;
  std::int64_t rows, begin, end, hidden, gate_row, hidden_row;
  StepSums sums;
  const void* projected;
  const float* hidden_bias;  ///< gru; may be null
  void* gates;               ///< may be null, or `projected`
  void* candidate;           ///< gru; null without gates
  float* cells;              ///< lstm; may be null
  void* y;
  float* carry;  ///< lstm: c, gru: h; read and replaced
  float* last;   ///< elman, lstm: gets h; may be null
  StepOperand next;
};

struct CellBackwardArgs {
  Elem elem;
  std::int64_t rows, begin, end, hidden, gate_row, hidden_row;
  StepSums sums;  ///< gradient of h from the next step
  const void* gates;
  const void* candidate;  ///< gru
  const float* cells;     ///< lstm
  const void* before;     ///< what the step began with: c (lstm), h (gru); null: zeros
  Elem before_elem;       ///< lstm: f32
  std::int64_t before_row;
  const void* dy;
  float* carry;   ///< lstm: gradient of c, gru: of h past R; read and replaced
  void* dgates;   ///< may be `gates`
  void* dhidden;  ///< gru; its rows lie gate_row apart
  StepOperand next;
};

struct RecurrentCells {
  void (*elman)(const CellForwardArgs&);
  void (*lstm)(const CellForwardArgs&);
  void (*gru)(const CellForwardArgs&);
  void (*elman_backward)(const CellBackwardArgs&);
  void (*lstm_backward)(const CellBackwardArgs&);
  void (*gru_backward)(const CellBackwardArgs&);
  /// x [rows, `stride` apart] of dtype `from`, of units [begin, end), to the operand, rounded as `elem` is.
  void (*operand)(Elem, Elem from, const void* x, std::int64_t stride, std::int64_t rows, std::int64_t begin,
                  std::int64_t end, const StepOperand&);
};

namespace portable {
extern const RecurrentCells recurrent_cells;
}
namespace v3 {
extern const RecurrentCells recurrent_cells;
}
namespace v4 {
extern const RecurrentCells recurrent_cells;
}

}  // namespace weft::cpu
