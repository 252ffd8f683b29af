// The recurrent cells of one time step; see core/kernels/recurrent.hpp for their equations. Backward, with activated
// gates and dh = dy + dgates⁺·R (+ what the GRU carries past R):
//   elman  dp = dh·(1−h²)
//   lstm   dc = dc⁺ + dh·o·(1−tanh²c);  di = dc·z·i(1−i), df = dc·c⁻·f(1−f), dz = dc·i·(1−z²), do = dh·tanh c·o(1−o);
//          dc⁻ = dc·f
//   gru    dn = dh·(1−u)·(1−n²), du = dh·(h⁻−n)·u(1−u), dr = dn·q·r(1−r), dq = dn·r;  dh⁻ = dh·u + [dr,du,dq]·R
#include "core/cpu/vec/recurrent.hpp"

#include "core/cpu/vec/activation.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

template <class Args>
WEFT_INLINE std::int64_t gate_at(const Args& a, std::int64_t row, int gate, std::int64_t unit) {
  return row * a.gate_row + gate * a.hidden + unit;
}

template <class Args>
WEFT_INLINE std::int64_t unit_at(const Args& a, std::int64_t row, std::int64_t unit) {
  return row * a.hidden_row + unit;
}

template <class Args, class N>
WEFT_INLINE Vec sum_of(const Args& a, std::int64_t row, int gate, std::int64_t unit, N n) {
  if (!a.sums.data) return Vec{};
  return load_n(a.sums.data + row * a.sums.row_stride + gate * a.sums.gate_stride + unit - a.begin, n);
}

template <class N>
WEFT_INLINE void to_next(const StepOperand& next, std::int64_t row, int gate, std::int64_t unit, N n, Vec value) {
  const std::int64_t k = gate * next.gate_step + unit;
  const std::int64_t at = row * next.row_stride + k / 16 * next.block_stride + k % 16;
  if (next.elem == Elem::f32)
    store_n(static_cast<float*>(next.data) + at, n, value);
  else
    store_n(static_cast<Half*>(next.data) + at, n, value);
}

template <class Args, class Body>
WEFT_INLINE void for_cells(const Args& a, Body&& body) {
  for (std::int64_t row = 0; row < a.rows; ++row)
    for_vectors(a.begin, a.end, [&](std::int64_t i, auto n) { body(row, i, n); });
}

template <class T>
void elman_forward(const CellForwardArgs& a) {
  const T* projected = static_cast<const T*>(a.projected);
  T* y = static_cast<T*>(a.y);
  T* gates = static_cast<T*>(a.gates);
  for_cells(a, [&](std::int64_t row, std::int64_t i, auto n) {
    const Vec h = tanh(load_n(projected + gate_at(a, row, 0, i), n) + sum_of(a, row, 0, i, n));
    if (gates) store_n(gates + gate_at(a, row, 0, i), n, h);
    store_n(y + unit_at(a, row, i), n, h);
    if (a.last) store_n(a.last + row * a.hidden + i, n, h);
    to_next(a.next, row, 0, i, n, rounded_to(h, y));
  });
}

template <class T>
void lstm_forward(const CellForwardArgs& a) {
  const T* projected = static_cast<const T*>(a.projected);
  T* y = static_cast<T*>(a.y);
  T* gates = static_cast<T*>(a.gates);
  for_cells(a, [&](std::int64_t row, std::int64_t i, auto n) {
    const auto pre = [&](int gate) {
      return load_n(projected + gate_at(a, row, gate, i), n) + sum_of(a, row, gate, i, n);
    };
    const Vec in = sigmoid(pre(0)), forget = sigmoid(pre(1)), z = tanh(pre(2)), out = sigmoid(pre(3));
    float* carry = a.carry + row * a.hidden + i;
    const Vec c = fma(forget, load_n(carry, n), in * z);
    const Vec h = out * tanh(c);
    store_n(carry, n, c);
    if (gates) {
      const Vec all[] = {in, forget, z, out};
      for (int gate = 0; gate < 4; ++gate) store_n(gates + gate_at(a, row, gate, i), n, all[gate]);
    }
    if (a.cells) store_n(a.cells + unit_at(a, row, i), n, c);
    store_n(y + unit_at(a, row, i), n, h);
    if (a.last) store_n(a.last + row * a.hidden + i, n, h);
    to_next(a.next, row, 0, i, n, rounded_to(h, y));
  });
}

template <class T>
void gru_forward(const CellForwardArgs& a) {
  const T* projected = static_cast<const T*>(a.projected);
  T* y = static_cast<T*>(a.y);
  T* gates = static_cast<T*>(a.gates);
  T* candidate = static_cast<T*>(a.candidate);
  for_cells(a, [&](std::int64_t row, std::int64_t i, auto n) {
    const auto x = [&](int gate) { return load_n(projected + gate_at(a, row, gate, i), n); };
    const Vec reset = sigmoid(x(0) + sum_of(a, row, 0, i, n)), update = sigmoid(x(1) + sum_of(a, row, 1, i, n));
    Vec q = sum_of(a, row, 2, i, n);
    if (a.hidden_bias) q += load_n(a.hidden_bias + i, n);
    const Vec fresh = tanh(fma(reset, q, x(2)));
    float* carry = a.carry + row * a.hidden + i;
    const Vec h = fma(update, load_n(carry, n) - fresh, fresh);
    store_n(carry, n, h);
    if (gates) {
      const Vec all[] = {reset, update, fresh};
      for (int gate = 0; gate < 3; ++gate) store_n(gates + gate_at(a, row, gate, i), n, all[gate]);
      store_n(candidate + unit_at(a, row, i), n, q);
    }
    store_n(y + unit_at(a, row, i), n, h);
    to_next(a.next, row, 0, i, n, rounded_to(h, y));
  });
}

template <class T>
void elman_backward(const CellBackwardArgs& a) {
  const T* gates = static_cast<const T*>(a.gates);
  const T* dy = static_cast<const T*>(a.dy);
  T* dgates = static_cast<T*>(a.dgates);
  for_cells(a, [&](std::int64_t row, std::int64_t i, auto n) {
    const Vec h = load_n(gates + gate_at(a, row, 0, i), n);
    const Vec d = (load_n(dy + unit_at(a, row, i), n) + sum_of(a, row, 0, i, n)) * fma(-h, h, splat(1.0f));
    store_n(dgates + gate_at(a, row, 0, i), n, d);
    to_next(a.next, row, 0, i, n, rounded_to(d, dgates));
  });
}

template <class T>
void lstm_backward(const CellBackwardArgs& a) {
  const T* gates = static_cast<const T*>(a.gates);
  const T* dy = static_cast<const T*>(a.dy);
  const float* before = static_cast<const float*>(a.before);
  T* dgates = static_cast<T*>(a.dgates);
  for_cells(a, [&](std::int64_t row, std::int64_t i, auto n) {
    const auto gate = [&](int g) { return load_n(gates + gate_at(a, row, g, i), n); };
    const Vec in = gate(0), forget = gate(1), z = gate(2), out = gate(3), one = splat(1.0f);
    const Vec squashed = tanh(load_n(a.cells + unit_at(a, row, i), n));
    const Vec c_before = before ? load_n(before + row * a.before_row + i, n) : Vec{};
    const Vec dh = load_n(dy + unit_at(a, row, i), n) + sum_of(a, row, 0, i, n);
    float* carry = a.carry + row * a.hidden + i;
    const Vec dc = fma(dh * out, fma(-squashed, squashed, one), load_n(carry, n));
    store_n(carry, n, dc * forget);
    const Vec all[] = {dc * z * (in * (one - in)), dc * c_before * (forget * (one - forget)), dc * in * fma(-z, z, one),
                       dh * squashed * (out * (one - out))};
    for (int g = 0; g < 4; ++g) {
      store_n(dgates + gate_at(a, row, g, i), n, all[g]);
      to_next(a.next, row, g, i, n, rounded_to(all[g], dgates));
    }
  });
}

template <class T>
void gru_backward(const CellBackwardArgs& a) {
  const T* gates = static_cast<const T*>(a.gates);
  const T* candidate = static_cast<const T*>(a.candidate);
  const T* dy = static_cast<const T*>(a.dy);
  T* dgates = static_cast<T*>(a.dgates);
  T* dhidden = static_cast<T*>(a.dhidden);
  for_cells(a, [&](std::int64_t row, std::int64_t i, auto n) {
    const auto gate = [&](int g) { return load_n(gates + gate_at(a, row, g, i), n); };
    const Vec reset = gate(0), update = gate(1), fresh = gate(2), one = splat(1.0f);
    const Vec q = load_n(candidate + unit_at(a, row, i), n);
    Vec h_before{};
    if (a.before) {
      const std::int64_t at = row * a.before_row + i;
      h_before = a.before_elem == Elem::f32 ? load_n(static_cast<const float*>(a.before) + at, n)
                                            : load_n(static_cast<const Half*>(a.before) + at, n);
    }
    float* carry = a.carry + row * a.hidden + i;
    const Vec dh = load_n(dy + unit_at(a, row, i), n) + sum_of(a, row, 0, i, n) + load_n(carry, n);
    store_n(carry, n, dh * update);
    const Vec dfresh = dh * (one - update) * fma(-fresh, fresh, one);
    const Vec dupdate = dh * (h_before - fresh) * (update * (one - update));
    const Vec dreset = dfresh * q * (reset * (one - reset));
    const Vec hidden[] = {dreset, dupdate, dfresh * reset};
    for (int g = 0; g < 3; ++g) {
      store_n(dgates + gate_at(a, row, g, i), n, g == 2 ? dfresh : hidden[g]);
      store_n(dhidden + gate_at(a, row, g, i), n, hidden[g]);
      to_next(a.next, row, g, i, n, rounded_to(hidden[g], dhidden));
    }
  });
}

void operand(Elem elem, Elem from, const void* x, std::int64_t stride, std::int64_t rows, std::int64_t begin,
             std::int64_t end, const StepOperand& to) {
  for (std::int64_t row = 0; row < rows; ++row)
    for_vectors(begin, end, [&](std::int64_t i, auto n) {
      const std::int64_t at = row * stride + i;
      const Vec v = from == Elem::f32 ? load_n(static_cast<const float*>(x) + at, n)
                                      : load_n(static_cast<const Half*>(x) + at, n);
      to_next(to, row, 0, i, n, elem == Elem::f32 ? v : rounded_to(v, static_cast<const Half*>(nullptr)));
    });
}

template <void (*f32)(const CellForwardArgs&), void (*bf16)(const CellForwardArgs&)>
void forward(const CellForwardArgs& args) {
  args.elem == Elem::f32 ? f32(args) : bf16(args);
}
template <void (*f32)(const CellBackwardArgs&), void (*bf16)(const CellBackwardArgs&)>
void backward(const CellBackwardArgs& args) {
  args.elem == Elem::f32 ? f32(args) : bf16(args);
}

}  // namespace

extern const RecurrentCells recurrent_cells = {
    forward<elman_forward<float>, elman_forward<Half>>,
    forward<lstm_forward<float>, lstm_forward<Half>>,
    forward<gru_forward<float>, gru_forward<Half>>,
    backward<elman_backward<float>, elman_backward<Half>>,
    backward<lstm_backward<float>, lstm_backward<Half>>,
    backward<gru_backward<float>, gru_backward<Half>>,
    operand,
};

}  // namespace weft::cpu::WEFT_ISA
