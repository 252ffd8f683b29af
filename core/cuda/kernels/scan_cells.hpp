// The cells of core/kernels/scan.hpp for one channel; the same interface as the CPU's:
//
//   open(x, c⁻) → gates    keep, add: c = keep·c⁻ + add    output: h
//   slope: ∂h/∂c    through: ∂c/∂c⁻ with what the gates see of c⁻    beside: what reaches c⁻ from dh without going through c
//   close: the columns' gradients from dh and gc, the gradient of c
#pragma once
#include <cmath>

#include "core/cuda/device/activation.hpp"

namespace weft::cuda::scan {

/// One step of one channel, with what the channel has for all steps.
template <int Columns>
struct StepOf {
  float u[Columns];
  float skip;  ///< x′, scaled
  float part;  ///< 1 over the number of steps so far
  float v_f, v_r, b_f, b_r, mask;
  bool tanh;
};

template <int Columns>
struct StepGradient {
  float du[Columns];
  float dskip;    ///< of x′ as scaled
  float sums[4];  ///< of v_f, v_r, b_f, b_r
};

WEFT_DEVICE float tanh_of(float x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }
WEFT_DEVICE float positive(float x) { return x >= 0.0f ? x + 0.5f : sigmoid(x); }
WEFT_DEVICE float positive_slope(float g) { return g >= 0.5f ? 1.0f : g * (1.0f - g); }

template <int Columns>
struct AffineCell {
  static constexpr int columns = Columns;
  using Step = StepOf<Columns>;
  using Gradient = StepGradient<Columns>;
  template <class Gates>
  WEFT_DEVICE static float output(const Step&, const Gates&, float c) {
    return c;
  }
  template <class Gates>
  WEFT_DEVICE static float slope(const Step&, const Gates&, float) {
    return 1.0f;
  }
  template <class Gates>
  WEFT_DEVICE static float beside(const Step&, const Gates&, float, float) {
    return 0.0f;
  }
};

template <bool StateInGates>
struct SruCell {
  static constexpr int columns = 3;
  using Step = StepOf<3>;
  using Gradient = StepGradient<3>;
  struct Gates {
    float f, r;
  };
  WEFT_DEVICE static Gates open(const Step& x, float before) {
    const float seen = StateInGates ? before : 0.0f;
    return {sigmoid(x.u[1] + x.b_f + x.v_f * seen), sigmoid(x.u[2] + x.b_r + x.v_r * seen)};
  }
  WEFT_DEVICE static float keep(const Step&, const Gates& gates) { return gates.f; }
  WEFT_DEVICE static float add(const Step& x, const Gates& gates) { return (1.0f - gates.f) * x.u[0]; }
  WEFT_DEVICE static float squashed(const Step& x, float c) { return x.tanh ? tanh_of(c) : c; }
  WEFT_DEVICE static float output(const Step& x, const Gates& gates, float c) {
    return (squashed(x, c) - x.skip) * x.mask * gates.r + x.skip;
  }
  WEFT_DEVICE static float slope(const Step& x, const Gates& gates, float c) {
    const float out = squashed(x, c);
    return x.mask * gates.r * (x.tanh ? 1.0f - out * out : 1.0f);
  }
  WEFT_DEVICE static float through(const Step& x, const Gates& gates, float before) {
    return StateInGates ? gates.f + (before - x.u[0]) * gates.f * (1.0f - gates.f) * x.v_f : gates.f;
  }
  /// The gradient of r's argument.
  WEFT_DEVICE static float reset_gradient(const Step& x, const Gates& gates, float c, float dh) {
    return dh * (squashed(x, c) - x.skip) * x.mask * gates.r * (1.0f - gates.r);
  }
  WEFT_DEVICE static float beside(const Step& x, const Gates& gates, float c, float dh) {
    return StateInGates ? reset_gradient(x, gates, c, dh) * x.v_r : 0.0f;
  }
  WEFT_DEVICE static void close(const Step& x, const Gates& gates, float before, float c, float gc, float dh,
                                Gradient& to) {
    const float df = gc * (before - x.u[0]) * gates.f * (1.0f - gates.f), dr = reset_gradient(x, gates, c, dh);
    to.du[0] = gc * (1.0f - gates.f);
    to.du[1] = df;
    to.du[2] = dr;
    to.dskip = dh * (1.0f - x.mask * gates.r);
    to.sums[0] += df * before;
    to.sums[1] += dr * before;
    to.sums[2] += df;
    to.sums[3] += dr;
  }
};

template <bool OutputGate>
struct QrnnCell : AffineCell<OutputGate ? 3 : 2> {
  using Step = StepOf<OutputGate ? 3 : 2>;
  using Gradient = StepGradient<OutputGate ? 3 : 2>;
  struct Gates {
    float z, f, o;
  };
  WEFT_DEVICE static Gates open(const Step& x, float) {
    float o = 1.0f;
    if constexpr (OutputGate) o = sigmoid(x.u[2]);
    return {tanh_of(x.u[0]), sigmoid(x.u[1]), o};
  }
  WEFT_DEVICE static float keep(const Step&, const Gates& gates) { return gates.f; }
  WEFT_DEVICE static float add(const Step&, const Gates& gates) { return (1.0f - gates.f) * gates.z; }
  WEFT_DEVICE static float output(const Step&, const Gates& gates, float c) { return gates.o * c; }
  WEFT_DEVICE static float slope(const Step&, const Gates& gates, float) { return gates.o; }
  WEFT_DEVICE static float through(const Step&, const Gates& gates, float) { return gates.f; }
  WEFT_DEVICE static void close(const Step&, const Gates& gates, float before, float c, float gc, float dh,
                                Gradient& to) {
    to.du[0] = gc * (1.0f - gates.f) * (1.0f - gates.z * gates.z);
    to.du[1] = gc * (before - gates.z) * gates.f * (1.0f - gates.f);
    if constexpr (OutputGate) to.du[2] = dh * c * gates.o * (1.0f - gates.o);
  }
};

struct MinGruCell : AffineCell<2> {
  struct Gates {
    float z, g;
  };
  WEFT_DEVICE static Gates open(const Step& x, float) { return {sigmoid(x.u[0]), positive(x.u[1])}; }
  WEFT_DEVICE static float keep(const Step&, const Gates& gates) { return 1.0f - gates.z; }
  WEFT_DEVICE static float add(const Step&, const Gates& gates) { return gates.z * gates.g; }
  WEFT_DEVICE static float through(const Step&, const Gates& gates, float) { return 1.0f - gates.z; }
  WEFT_DEVICE static void close(const Step&, const Gates& gates, float before, float, float gc, float, Gradient& to) {
    to.du[0] = gc * (gates.g - before) * gates.z * (1.0f - gates.z);
    to.du[1] = gc * gates.z * positive_slope(gates.g);
  }
};

struct MinLstmCell : AffineCell<3> {
  struct Gates {
    float f, i, part, g;  ///< part = 1/(f + i)
  };
  WEFT_DEVICE static Gates open(const Step& x, float) {
    // As large as the largest argument that σ does not round to 0 at.
    const float f = sigmoid(x.u[0] > -80.0f ? x.u[0] : -80.0f), i = sigmoid(x.u[1] > -80.0f ? x.u[1] : -80.0f);
    return {f, i, 1.0f / (f + i), positive(x.u[2])};
  }
  WEFT_DEVICE static float keep(const Step&, const Gates& gates) { return gates.f * gates.part; }
  WEFT_DEVICE static float add(const Step&, const Gates& gates) { return gates.i * gates.part * gates.g; }
  WEFT_DEVICE static float through(const Step&, const Gates& gates, float) { return gates.f * gates.part; }
  WEFT_DEVICE static void close(const Step&, const Gates& gates, float before, float, float gc, float, Gradient& to) {
    const float in = gates.i * gates.part, both = gc * (before - gates.g) * gates.f * gates.part * in;
    to.du[0] = both * (1.0f - gates.f);
    to.du[1] = -both * (1.0f - gates.i);
    to.du[2] = gc * in * positive_slope(gates.g);
  }
};

struct MeanCell : AffineCell<1> {
  struct Gates {};
  WEFT_DEVICE static Gates open(const Step&, float) { return {}; }
  WEFT_DEVICE static float keep(const Step&, const Gates&) { return 1.0f; }
  WEFT_DEVICE static float add(const Step& x, const Gates&) { return x.u[0]; }
  WEFT_DEVICE static float output(const Step& x, const Gates&, float c) { return x.part * c; }
  WEFT_DEVICE static float slope(const Step& x, const Gates&, float) { return x.part; }
  WEFT_DEVICE static float through(const Step&, const Gates&, float) { return 1.0f; }
  WEFT_DEVICE static void close(const Step&, const Gates&, float, float, float gc, float, Gradient& to) {
    to.du[0] = gc;
  }
};

}  // namespace weft::cuda::scan
