// Recurrences step by step: a product with the recurrent weight into f32 sums, then one launch for all cells of the step.
// Nothing waits for the host, so a whole sequence can be captured. See core/kernels/recurrent.hpp for the equations, and
// core/cpu/vec/recurrent.cpp for their gradients.
#include "core/cuda/device/activation.hpp"
#include "core/cuda/device/numeric.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/kernels/weight.hpp"
#include "core/cuda/launch.hpp"
#include "core/cuda/matmul.hpp"
#include "core/cuda/scratch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

/// Pointers are at sequence 0 of one step. Rows lie gate_row apart in what has gates, hidden_row in what has units, and
/// `hidden` in states and sums.
struct StepSizes {
  std::int64_t batch, hidden, gate_row, hidden_row;
};

template <class T, RecurrentCell Cell>
struct CellForward {
  static constexpr int threads = 256;
  static constexpr int gate_count = static_cast<int>(gates_of(Cell));
  StepSizes sizes;
  const float* sums;  // [batch, gates·hidden]; null: zeros
  const T* projected;
  const float* hidden_bias;  // may be null
  T* gates;                  // may be null
  T* candidate;
  float* cells;
  T* y;
  const float* carry;  // null: zeros
  float* carry_out;
  float* last;  // may be null

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, sizes.batch * sizes.hidden, [&](std::int64_t i) {
      const std::int64_t row = i / sizes.hidden, unit = i - row * sizes.hidden;
      const std::int64_t at = row * sizes.hidden_row + unit;
      float x[gate_count], sum[gate_count];
      WEFT_UNROLL
      for (int gate = 0; gate < gate_count; ++gate) {
        x[gate] = to_float(projected[row * sizes.gate_row + gate * sizes.hidden + unit]);
        sum[gate] = sums ? sums[(row * gate_count + gate) * sizes.hidden + unit] : 0.0f;
      }
      float h;
      if constexpr (Cell == RecurrentCell::elman) {
        h = x[0] = tanh_of(x[0] + sum[0]);
      } else if constexpr (Cell == RecurrentCell::lstm) {
        x[0] = sigmoid(x[0] + sum[0]);
        x[1] = sigmoid(x[1] + sum[1]);
        x[2] = tanh_of(x[2] + sum[2]);
        x[3] = sigmoid(x[3] + sum[3]);
        const float c = x[1] * (carry ? carry[i] : 0.0f) + x[0] * x[2];
        h = x[3] * tanh_of(c);
        carry_out[i] = c;
        if (cells) cells[at] = c;
      } else {
        const float q = sum[2] + (hidden_bias ? hidden_bias[unit] : 0.0f);
        x[0] = sigmoid(x[0] + sum[0]);
        x[1] = sigmoid(x[1] + sum[1]);
        x[2] = tanh_of(x[2] + x[0] * q);
        h = x[2] + x[1] * ((carry ? carry[i] : 0.0f) - x[2]);
        carry_out[i] = h;
        if (candidate) candidate[at] = from_float<T>(q);
      }
      if (gates) {
        WEFT_UNROLL
        for (int gate = 0; gate < gate_count; ++gate)
          gates[row * sizes.gate_row + gate * sizes.hidden + unit] = from_float<T>(x[gate]);
      }
      y[at] = from_float<T>(h);
      if (last) last[i] = h;
    });
  }
};

template <class T, RecurrentCell Cell>
struct CellBackward {
  static constexpr int threads = 256;
  static constexpr int gate_count = static_cast<int>(gates_of(Cell));
  StepSizes sizes;
  const float* sums;  // [batch, hidden]: gradient of h from the next step; null: zeros
  const T* gates;
  const T* candidate;
  const float* cells;
  const float* state_before;  // f32 c or h that the step began with, rows before_row apart; null: see y_before
  const T* y_before;          // gru: h of the step before; null: zeros
  std::int64_t before_row;
  const T* dy;
  const float* carry;  // null: zeros
  float* carry_out;
  T* dgates;
  T* dhidden;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, sizes.batch * sizes.hidden, [&](std::int64_t i) {
      const std::int64_t row = i / sizes.hidden, unit = i - row * sizes.hidden;
      const std::int64_t at = row * sizes.hidden_row + unit, gate_at = row * sizes.gate_row + unit;
      float g[gate_count], d[gate_count];
      WEFT_UNROLL
      for (int gate = 0; gate < gate_count; ++gate) g[gate] = to_float(gates[gate_at + gate * sizes.hidden]);
      float before = 0;
      if (state_before)
        before = state_before[row * before_row + unit];
      else if (y_before)
        before = to_float(y_before[row * before_row + unit]);
      float dh = to_float(dy[at]) + (sums ? sums[i] : 0.0f);
      if constexpr (Cell == RecurrentCell::elman) {
        d[0] = dh * (1.0f - g[0] * g[0]);
      } else if constexpr (Cell == RecurrentCell::lstm) {
        const float squashed = tanh_of(cells[at]);
        const float dc = (carry ? carry[i] : 0.0f) + dh * g[3] * (1.0f - squashed * squashed);
        carry_out[i] = dc * g[1];
        d[0] = dc * g[2] * g[0] * (1.0f - g[0]);
        d[1] = dc * before * g[1] * (1.0f - g[1]);
        d[2] = dc * g[0] * (1.0f - g[2] * g[2]);
        d[3] = dh * squashed * g[3] * (1.0f - g[3]);
      } else {
        dh += carry ? carry[i] : 0.0f;
        carry_out[i] = dh * g[1];
        d[2] = dh * (1.0f - g[1]) * (1.0f - g[2] * g[2]);
        d[1] = dh * (before - g[2]) * g[1] * (1.0f - g[1]);
        d[0] = d[2] * to_float(candidate[at]) * g[0] * (1.0f - g[0]);
        dhidden[gate_at] = from_float<T>(d[0]);
        dhidden[gate_at + sizes.hidden] = from_float<T>(d[1]);
        dhidden[gate_at + 2 * sizes.hidden] = from_float<T>(d[2] * g[0]);
      }
      WEFT_UNROLL
      for (int gate = 0; gate < gate_count; ++gate) dgates[gate_at + gate * sizes.hidden] = from_float<T>(d[gate]);
    });
  }
};

template <class T, class AnyView>
auto* step_of(const AnyView& view, std::int64_t offset) {
  using Element = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const T, T>;
  auto* base = static_cast<Element*>(view.data);
  return base ? base + offset : nullptr;
}

StepSizes step_sizes(const RecurrentSizes& s) {
  return {s.batch, s.hidden, s.steps * s.gate_width(), s.steps * s.hidden};
}

/// The steps of a forward pass over some units: with their own scratch, and R as their product reads it.
template <class T, RecurrentCell Cell>
class ForwardSteps {
 public:
  ForwardSteps(ExecContext& exec, const RecurrentForward& job, const RecurrentSizes& s) : exec_(exec), job_(job), s_(s) {
    ScratchParts parts;
    const std::size_t workspace = parts.add(matmul_workspace(exec));
    const std::size_t copy = parts.add(weight_scratch(job.weight, job.y.dtype));
    const std::size_t sums = parts.add(static_cast<std::size_t>(s.batch * s.gate_width()) * sizeof(float));
    const std::size_t first = parts.add(static_cast<std::size_t>(s.batch * s.hidden) * sizeof(bf16));
    auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
    sums_ = reinterpret_cast<float*>(scratch + sums);
    first_ = reinterpret_cast<bf16*>(scratch + first);
    product_.b = weight_for(exec, job.weight, job.y.dtype, scratch + copy);
    product_.transpose_b = true;
    product_.out = Matrix(sums_, DType::f32, s.batch, s.gate_width(), s.gate_width());
    product_.workspace = scratch + workspace;
  }

  /// h_first as products read it, or nothing.
  ConstMatrix first() {
    if (!job_.h_first) return {};
    const void* h = job_.h_first.data;
    if (job_.y.dtype == DType::bf16) {
      narrow(exec_, floats(job_.h_first), s_.batch * s_.hidden, first_);
      h = first_;
    }
    return {h, job_.y.dtype, s_.batch, s_.hidden, s_.hidden};
  }

  /// before: h⁻ of all units; empty: zeros.
  void run(std::int64_t t, const ConstMatrix& before) {
    product_.a = before;
    if (before) matmul(exec_, product_);
    constexpr bool lstm = Cell == RecurrentCell::lstm, gru = Cell == RecurrentCell::gru;
    float* carry = lstm ? floats(job_.c_last) : gru ? floats(job_.h_last) : nullptr;
    const View& first = lstm ? job_.c_first : job_.h_first;
    const CellForward<T, Cell> kernel{step_sizes(s_),
                                      before ? sums_ : nullptr,
                                      step_of<T>(job_.projected, t * s_.gate_width()),
                                      floats(job_.hidden_bias),
                                      step_of<T>(job_.gates, t * s_.gate_width()),
                                      step_of<T>(job_.candidate, t * s_.hidden),
                                      step_of<float>(job_.cells, t * s_.hidden),
                                      step_of<T>(job_.y, t * s_.hidden),
                                      t > 0 ? carry : floats(first),
                                      carry,
                                      !gru && t + 1 == s_.steps ? floats(job_.h_last) : nullptr};
    launch(exec_, blocks_for<CellForward<T, Cell>>(s_.batch * s_.hidden), kernel);
  }

 private:
  ExecContext& exec_;
  const RecurrentForward& job_;
  RecurrentSizes s_;
  MatmulArgs product_;
  float* sums_ = nullptr;
  bf16* first_ = nullptr;
};

template <class T, RecurrentCell Cell>
void forward_steps(ExecContext& exec, const RecurrentForward& job, const RecurrentSizes& s) {
  ForwardSteps<T, Cell> steps(exec, job, s);
  for (std::int64_t t = 0; t < s.steps; ++t)
    steps.run(t, t == 0 ? steps.first()
                        : ConstMatrix(job.y.as<T>() + (t - 1) * s.hidden, job.y.dtype, s.batch, s.hidden,
                                      s.steps * s.hidden));
}

/// The steps of a backward pass over some units.
template <class T, RecurrentCell Cell>
class BackwardSteps {
 public:
  static constexpr bool lstm = Cell == RecurrentCell::lstm, gru = Cell == RecurrentCell::gru;

  BackwardSteps(ExecContext& exec, const RecurrentBackward& job, const RecurrentSizes& s)
      : exec_(exec), job_(job), s_(s) {
    const std::size_t state_bytes = static_cast<std::size_t>(s.batch * s.hidden) * sizeof(float);
    ScratchParts parts;
    const std::size_t workspace = parts.add(matmul_workspace(exec));
    const std::size_t copy = parts.add(weight_scratch(job.weight, job.dy.dtype));
    const std::size_t sums_at = parts.add(state_bytes), carry_at = parts.add(state_bytes);
    auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
    sums = reinterpret_cast<float*>(scratch + sums_at);
    carry = reinterpret_cast<float*>(scratch + carry_at);
    product_.b = weight_for(exec, job.weight, job.dy.dtype, scratch + copy);
    product_.workspace = scratch + workspace;
  }

  /// dh: gradient of h from the step after; null: zeros.
  void cells(std::int64_t t, const float* dh, const float* carry_in, float* carry_out) {
    const float* state_before = nullptr;
    if constexpr (lstm) state_before = t > 0 ? step_of<float>(job_.cells, (t - 1) * s_.hidden) : floats(job_.c_first);
    if constexpr (gru) state_before = t > 0 ? nullptr : floats(job_.h_first);
    const CellBackward<T, Cell> kernel{step_sizes(s_),
                                       dh,
                                       step_of<T>(job_.gates, t * s_.gate_width()),
                                       step_of<T>(job_.candidate, t * s_.hidden),
                                       step_of<float>(job_.cells, t * s_.hidden),
                                       state_before,
                                       gru && t > 0 ? step_of<T>(job_.y, (t - 1) * s_.hidden) : nullptr,
                                       t > 0 ? s_.steps * s_.hidden : s_.hidden,
                                       step_of<T>(job_.dy, t * s_.hidden),
                                       carry_in,
                                       carry_out,
                                       step_of<T>(job_.dgates, t * s_.gate_width()),
                                       step_of<T>(job_.dhidden, t * s_.gate_width())};
    launch(exec_, blocks_for<CellBackward<T, Cell>>(s_.batch * s_.hidden), kernel);
  }

  /// out [B, columns of R] (= or +=) the gradient of h⁻ through R.
  void multiply(std::int64_t t, const Matrix& out, Write write) {
    const MutView& stepped = gru ? job_.dhidden : job_.dgates;  // what a step multiplied by R is the gradient of
    product_.a =
        ConstMatrix(step_of<T>(stepped, t * s_.gate_width()), job_.dy.dtype, s_.batch, s_.gate_width(),
                    s_.steps * s_.gate_width());
    product_.out = out;
    product_.added = write == Write::add ? ConstMatrix(out) : ConstMatrix{};
    matmul(exec_, product_);
  }

  float* sums = nullptr;   ///< scratch [B,H]
  float* carry = nullptr;  ///< scratch [B,H]

 private:
  ExecContext& exec_;
  const RecurrentBackward& job_;
  RecurrentSizes s_;
  MatmulArgs product_;
};

template <class T, RecurrentCell Cell>
void backward_steps(ExecContext& exec, const RecurrentBackward& job, const RecurrentSizes& s) {
  using Steps = BackwardSteps<T, Cell>;
  Steps steps(exec, job, s);
  const auto state = [&](void* data) { return Matrix(data, DType::f32, s.batch, s.hidden, s.hidden); };
  // The last carry is the gradient of c, or the part of h's that goes past R.
  const MutView& wanted = Steps::lstm ? job.dc_first : job.dh_first;
  for (std::int64_t t = s.steps - 1; t >= 0; --t) {
    const bool first_run = t + 1 == s.steps;
    if (!first_run) steps.multiply(t + 1, state(steps.sums), Write::overwrite);
    const float* carry = !first_run ? steps.carry : Steps::lstm ? floats(job.dc_last) : nullptr;
    steps.cells(t, first_run ? floats(job.dh_last) : steps.sums, carry, t == 0 && wanted ? floats(wanted) : steps.carry);
  }
  if (job.dh_first) steps.multiply(0, state(job.dh_first.data), Steps::gru ? Write::add : Write::overwrite);
}

template <class Body>
void dispatch_cell(RecurrentCell cell, Body&& body) {
  switch (cell) {
    case RecurrentCell::elman: return body.template operator()<RecurrentCell::elman>();
    case RecurrentCell::lstm: return body.template operator()<RecurrentCell::lstm>();
    case RecurrentCell::gru: return body.template operator()<RecurrentCell::gru>();
  }
}

void forward(ExecContext& exec, RecurrentForward job) {
  const RecurrentSizes sizes = check_recurrent(job);
  if (sizes.batch == 0 || sizes.hidden == 0) return;
  dispatch_float(job.y.dtype, [&]<class T>() {
    dispatch_cell(job.cell, [&]<RecurrentCell Cell>() { forward_steps<T, Cell>(exec, job, sizes); });
  });
}

void backward(ExecContext& exec, RecurrentBackward job) {
  const RecurrentSizes sizes = check_recurrent(job);
  if (sizes.batch == 0 || sizes.hidden == 0) return;
  dispatch_float(job.dy.dtype, [&]<class T>() {
    dispatch_cell(job.cell, [&]<RecurrentCell Cell>() { backward_steps<T, Cell>(exec, job, sizes); });
  });
}

void forward_step(ExecContext& exec, RecurrentForward job, std::int64_t step, View before) {
  const RecurrentSizes s = check_recurrent_step(job, step, before);
  if (s.batch == 0 || s.hidden == 0) return;
  dispatch_float(job.y.dtype, [&]<class T>() {
    dispatch_cell(job.cell, [&]<RecurrentCell Cell>() {
      const std::int64_t all = before.shape[2];
      ConstMatrix left;
      if (step > 0 || job.h_first)
        left = ConstMatrix(before.as<T>() + step * all, before.dtype, s.batch, all, s.steps * all);
      ForwardSteps<T, Cell>(exec, job, s).run(step, left);
    });
  });
}

void backward_step(ExecContext& exec, RecurrentBackward job, std::int64_t step, View dh, MutView carry,
                   MutView dh_before) {
  const RecurrentSizes s = check_recurrent_step(job, step, dh, carry, dh_before);
  if (s.batch == 0 || s.hidden == 0) return;
  dispatch_float(job.dy.dtype, [&]<class T>() {
    dispatch_cell(job.cell, [&]<RecurrentCell Cell>() {
      BackwardSteps<T, Cell> steps(exec, job, s);
      const float* begin = job.cell == RecurrentCell::lstm ? floats(job.dc_last) : nullptr;
      steps.cells(step, floats(dh), step + 1 == s.steps ? begin : floats(carry), floats(carry));
      if (!dh_before) return;
      const std::int64_t all = dh_before.shape[1];
      steps.multiply(step, Matrix(dh_before.data, DType::f32, s.batch, all, all), Write::overwrite);
    });
  });
}

}  // namespace

void bind_recurrent(KernelTable& table) {
  table.recurrent.forward.bind(forward);
  table.recurrent.backward.bind(backward);
  table.recurrent.forward_step.bind(forward_step);
  table.recurrent.backward_step.bind(backward_step);
}

}  // namespace weft::cuda
