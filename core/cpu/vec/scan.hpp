// The cells of core/kernels/scan.hpp. Each says how a step's columns become gates, and with c⁻ and c the states before and
// after the step, what backward needs of it:
//
//   open(x, i, n, c⁻) → gates    keep, add: c = keep⊙c⁻ + add    output: h
//   slope: ∂h/∂c    through: ∂c/∂c⁻ with what the gates see of c⁻    beside: what reaches c⁻ from dh without going through c
//   close: the columns' gradients from dh and gc, the gradient of c
#pragma once
#include "core/cpu/vec/activation.hpp"

namespace weft::cpu::WEFT_ISA::scan {

WEFT_INLINE Vec tanh_of(Vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }
WEFT_INLINE Vec rest(Vec x) { return 1.0f - x; }

/// The channels of one sequence.
struct Channels {
  const float *v_f, *v_r, *b_f, *b_r;
  const float* mask;  ///< may be null
  float skip_scale;
  bool tanh;
};

/// One step of one sequence.
template <class T>
struct Columns {
  const Channels& channels;
  std::int64_t width;  ///< of a gate
  const T* u;
  const T* skip;  ///< may be null
  float part;     ///< 1 over the number of steps so far

  template <class N>
  WEFT_INLINE Vec at(int gate, std::int64_t i, N n) const {
    return load_n(u + gate * width + i, n);
  }
  template <class N>
  WEFT_INLINE Vec skipped(std::int64_t i, N n) const {
    return skip ? channels.skip_scale * load_n(skip + i, n) : Vec{};
  }
  template <class N>
  WEFT_INLINE Vec mask(std::int64_t i, N n) const {
    return channels.mask ? load_n(channels.mask + i, n) : splat(1.0f);
  }
};

/// Where the gradients of a step go.
template <class T>
struct ColumnGradients {
  std::int64_t width;
  T* du;
  T* dskip;
  float* partials;  ///< of v_f, v_r, b_f, b_r

  template <class N>
  WEFT_INLINE void put(int gate, std::int64_t i, N n, Vec value) const {
    store_n(du + gate * width + i, n, value);
  }
  template <class N>
  WEFT_INLINE void sum(int which, std::int64_t i, N n, Vec value) const {
    float* to = partials + which * width + i;
    store_n(to, n, load_n(to, n) + value);
  }
};

/// What most cells share: gates that do not see the state, and h = c.
struct AffineCell {
  template <class X, class N, class Gates>
  WEFT_INLINE static Vec output(const X&, std::int64_t, N, const Gates&, Vec c) {
    return c;
  }
  template <class X, class N, class Gates>
  WEFT_INLINE static Vec slope(const X&, std::int64_t, N, const Gates&, Vec) {
    return splat(1.0f);
  }
  template <class X, class N, class Gates>
  WEFT_INLINE static Vec beside(const X&, std::int64_t, N, const Gates&, Vec, Vec) {
    return Vec{};
  }
};

template <bool StateInGates>
struct Sru {
  struct Gates {
    Vec f, r;
  };
  template <class X, class N>
  WEFT_INLINE static Gates open(const X& x, std::int64_t i, N n, Vec before) {
    Vec f = x.at(1, i, n) + load_n(x.channels.b_f + i, n), r = x.at(2, i, n) + load_n(x.channels.b_r + i, n);
    if constexpr (StateInGates) {
      f = fma(load_n(x.channels.v_f + i, n), before, f);
      r = fma(load_n(x.channels.v_r + i, n), before, r);
    }
    return {sigmoid(f), sigmoid(r)};
  }
  template <class X, class N>
  WEFT_INLINE static Vec keep(const X&, std::int64_t, N, const Gates& gates) {
    return gates.f;
  }
  template <class X, class N>
  WEFT_INLINE static Vec add(const X& x, std::int64_t i, N n, const Gates& gates) {
    return rest(gates.f) * x.at(0, i, n);
  }
  template <class X, class N>
  WEFT_INLINE static Vec output(const X& x, std::int64_t i, N n, const Gates& gates, Vec c) {
    const Vec skipped = x.skipped(i, n), out = x.channels.tanh ? tanh_of(c) : c;
    return fma((out - skipped) * x.mask(i, n), gates.r, skipped);
  }
  template <class X, class N>
  WEFT_INLINE static Vec slope(const X& x, std::int64_t i, N n, const Gates& gates, Vec c) {
    const Vec open = x.mask(i, n) * gates.r;
    if (!x.channels.tanh) return open;
    const Vec out = tanh_of(c);
    return open * rest(out * out);
  }
  template <class X, class N>
  WEFT_INLINE static Vec through(const X& x, std::int64_t i, N n, const Gates& gates, Vec before) {
    if constexpr (!StateInGates) return gates.f;
    const Vec by_gate = (before - x.at(0, i, n)) * gates.f * rest(gates.f);
    return fma(by_gate, load_n(x.channels.v_f + i, n), gates.f);
  }
  /// The gradient of r's argument.
  template <class X, class N>
  WEFT_INLINE static Vec reset_gradient(const X& x, std::int64_t i, N n, const Gates& gates, Vec c, Vec dh) {
    const Vec out = x.channels.tanh ? tanh_of(c) : c;
    return dh * (out - x.skipped(i, n)) * x.mask(i, n) * gates.r * rest(gates.r);
  }
  template <class X, class N>
  WEFT_INLINE static Vec beside(const X& x, std::int64_t i, N n, const Gates& gates, Vec c, Vec dh) {
    if constexpr (!StateInGates) return Vec{};
    return reset_gradient(x, i, n, gates, c, dh) * load_n(x.channels.v_r + i, n);
  }
  template <class X, class G, class N>
  WEFT_INLINE static void close(const X& x, const G& to, std::int64_t i, N n, const Gates& gates, Vec before, Vec c,
                                Vec gc, Vec dh) {
    const Vec df = gc * (before - x.at(0, i, n)) * gates.f * rest(gates.f);
    const Vec dr = reset_gradient(x, i, n, gates, c, dh);
    to.put(0, i, n, gc * rest(gates.f));
    to.put(1, i, n, df);
    to.put(2, i, n, dr);
    if (to.dskip) store_n(to.dskip + i, n, x.channels.skip_scale * dh * fma(-x.mask(i, n), gates.r, splat(1.0f)));
    if constexpr (StateInGates) {
      to.sum(0, i, n, df * before);
      to.sum(1, i, n, dr * before);
    }
    to.sum(2, i, n, df);
    to.sum(3, i, n, dr);
  }
};

template <bool OutputGate>
struct Qrnn : AffineCell {
  struct Gates {
    Vec z, f, o;
  };
  template <class X, class N>
  WEFT_INLINE static Gates open(const X& x, std::int64_t i, N n, Vec) {
    return {tanh_of(x.at(0, i, n)), sigmoid(x.at(1, i, n)), OutputGate ? sigmoid(x.at(2, i, n)) : splat(1.0f)};
  }
  template <class X, class N>
  WEFT_INLINE static Vec keep(const X&, std::int64_t, N, const Gates& gates) {
    return gates.f;
  }
  template <class X, class N>
  WEFT_INLINE static Vec add(const X&, std::int64_t, N, const Gates& gates) {
    return rest(gates.f) * gates.z;
  }
  template <class X, class N>
  WEFT_INLINE static Vec output(const X&, std::int64_t, N, const Gates& gates, Vec c) {
    return OutputGate ? gates.o * c : c;
  }
  template <class X, class N>
  WEFT_INLINE static Vec slope(const X&, std::int64_t, N, const Gates& gates, Vec) {
    return gates.o;
  }
  template <class X, class N>
  WEFT_INLINE static Vec through(const X&, std::int64_t, N, const Gates& gates, Vec) {
    return gates.f;
  }
  template <class X, class G, class N>
  WEFT_INLINE static void close(const X&, const G& to, std::int64_t i, N n, const Gates& gates, Vec before, Vec c,
                                Vec gc, Vec dh) {
    to.put(0, i, n, gc * rest(gates.f) * rest(gates.z * gates.z));
    to.put(1, i, n, gc * (before - gates.z) * gates.f * rest(gates.f));
    if constexpr (OutputGate) to.put(2, i, n, dh * c * gates.o * rest(gates.o));
  }
};

/// g(x) = x + ½ for x >= 0, else σ(x), and its derivative from its value.
WEFT_INLINE Vec positive(Vec x) { return x >= Vec{} ? x + 0.5f : sigmoid(x); }
WEFT_INLINE Vec positive_slope(Vec g) { return g >= splat(0.5f) ? splat(1.0f) : g * rest(g); }

struct MinGru : AffineCell {
  struct Gates {
    Vec z, g;
  };
  template <class X, class N>
  WEFT_INLINE static Gates open(const X& x, std::int64_t i, N n, Vec) {
    return {sigmoid(x.at(0, i, n)), positive(x.at(1, i, n))};
  }
  template <class X, class N>
  WEFT_INLINE static Vec keep(const X&, std::int64_t, N, const Gates& gates) {
    return rest(gates.z);
  }
  template <class X, class N>
  WEFT_INLINE static Vec add(const X&, std::int64_t, N, const Gates& gates) {
    return gates.z * gates.g;
  }
  template <class X, class N>
  WEFT_INLINE static Vec through(const X&, std::int64_t, N, const Gates& gates, Vec) {
    return rest(gates.z);
  }
  template <class X, class G, class N>
  WEFT_INLINE static void close(const X&, const G& to, std::int64_t i, N n, const Gates& gates, Vec before, Vec, Vec gc,
                                Vec) {
    to.put(0, i, n, gc * (gates.g - before) * gates.z * rest(gates.z));
    to.put(1, i, n, gc * gates.z * positive_slope(gates.g));
  }
};

struct MinLstm : AffineCell {
  struct Gates {
    Vec f, i, part, g;  ///< part = 1/(f + i)
  };
  template <class X, class N>
  WEFT_INLINE static Gates open(const X& x, std::int64_t i, N n, Vec) {
    const Vec f = sigmoid(x.at(0, i, n)), in = sigmoid(x.at(1, i, n));
    return {f, in, 1.0f / (f + in), positive(x.at(2, i, n))};
  }
  template <class X, class N>
  WEFT_INLINE static Vec keep(const X&, std::int64_t, N, const Gates& gates) {
    return gates.f * gates.part;
  }
  template <class X, class N>
  WEFT_INLINE static Vec add(const X&, std::int64_t, N, const Gates& gates) {
    return gates.i * gates.part * gates.g;
  }
  template <class X, class N>
  WEFT_INLINE static Vec through(const X&, std::int64_t, N, const Gates& gates, Vec) {
    return gates.f * gates.part;
  }
  template <class X, class G, class N>
  WEFT_INLINE static void close(const X&, const G& to, std::int64_t i, N n, const Gates& gates, Vec before, Vec, Vec gc,
                                Vec) {
    const Vec in = gates.i * gates.part, both = gc * (before - gates.g) * gates.f * gates.part * in;
    to.put(0, i, n, both * rest(gates.f));
    to.put(1, i, n, -both * rest(gates.i));
    to.put(2, i, n, gc * in * positive_slope(gates.g));
  }
};

struct Mean : AffineCell {
  struct Gates {};
  template <class X, class N>
  WEFT_INLINE static Gates open(const X&, std::int64_t, N, Vec) {
    return {};
  }
  template <class X, class N>
  WEFT_INLINE static Vec keep(const X&, std::int64_t, N, Gates) {
    return splat(1.0f);
  }
  template <class X, class N>
  WEFT_INLINE static Vec add(const X& x, std::int64_t i, N n, Gates) {
    return x.at(0, i, n);
  }
  template <class X, class N>
  WEFT_INLINE static Vec output(const X& x, std::int64_t, N, Gates, Vec c) {
    return x.part * c;
  }
  template <class X, class N>
  WEFT_INLINE static Vec slope(const X& x, std::int64_t, N, Gates, Vec) {
    return splat(x.part);
  }
  template <class X, class N>
  WEFT_INLINE static Vec through(const X&, std::int64_t, N, Gates, Vec) {
    return splat(1.0f);
  }
  template <class X, class G, class N>
  WEFT_INLINE static void close(const X&, const G& to, std::int64_t i, N n, Gates, Vec, Vec, Vec gc, Vec) {
    to.put(0, i, n, gc);
  }
};

/// body.template operator()<T, Cell>() for what the arguments ask for.
template <class Body>
void for_cell(const ScanArgs& args, Body&& body) {
  const auto with = [&]<class T>() {
    switch (args.cell) {
      case ScanKind::sru: return body.template operator()<T, Sru<true>>();
      case ScanKind::sru_affine: return body.template operator()<T, Sru<false>>();
      case ScanKind::qrnn_f: return body.template operator()<T, Qrnn<false>>();
      case ScanKind::qrnn_fo: return body.template operator()<T, Qrnn<true>>();
      case ScanKind::mingru: return body.template operator()<T, MinGru>();
      case ScanKind::minlstm: return body.template operator()<T, MinLstm>();
      case ScanKind::mean: return body.template operator()<T, Mean>();
    }
  };
  args.elem == Elem::f32 ? with.template operator()<float>() : with.template operator()<Half>();
}

/// The rows of one task.
template <class T>
struct Walk {
  const ScanArgs& args;
  const ScanTask& task;
  Channels channels;

  Walk(const ScanArgs& a, const ScanTask& t)
      : args(a),
        task(t), channels{a.v_f,        a.v_r, a.b_f, a.b_r, a.mask ? a.mask + t.sequence * a.channels : nullptr,
                          a.skip_scale, a.tanh} {}

  WEFT_INLINE std::int64_t token(std::int64_t step) const { return task.reverse ? args.steps - 1 - step : step; }
  WEFT_INLINE Columns<T> columns(std::int64_t step) const {
    const std::int64_t at = token(step), b = task.sequence;
    return {
        channels, args.channels, static_cast<const T*>(args.u) + b * args.u_strides[0] + at * args.u_strides[1],
        args.skip ? static_cast<const T*>(args.skip) + b * args.skip_strides[0] + at * args.skip_strides[1] : nullptr,
        1.0f / static_cast<float>(args.steps_before + step + 1)};
  }
  /// Row of h or dh.
  template <class P>
  WEFT_INLINE P* row(P* base, std::int64_t step) const {
    return base + (task.sequence * args.steps + token(step)) * args.channels;
  }
  WEFT_INLINE float* state_row(std::int64_t chunk) const {
    const std::int64_t chunks = (args.steps + args.chunk - 1) / args.chunk;
    return args.states + (task.sequence * chunks + chunk) * args.channels;
  }
};

}  // namespace weft::cpu::WEFT_ISA::scan
