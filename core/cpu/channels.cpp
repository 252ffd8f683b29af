#include <algorithm>

#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"
#include "core/kernels/check_channels.hpp"

namespace weft::cpu {
namespace {

ChannelGateArgs gate_args(GateFunction phi, const View& ab, std::int64_t cols) {
  return {phi == GateFunction::tanh, cols, floats(ab), floats(ab) + cols};
}

std::int64_t floats_of_lines(std::int64_t count) { return (count + 15) / 16 * 16; }

template <const VecKernels& vec>
void gate(ExecContext& exec, GateFunction phi, View x, View ab, MutView y) {
  check_channel_gate(x, ab, y);
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (x.numel() == 0) return;
  auto* gates = static_cast<float*>(exec.scratch(static_cast<std::size_t>(cols) * sizeof(float)));
  vec.channel_gates(gate_args(phi, ab, cols), gates);
  const Elem elem = elem_of(x);
  for_ranges(threads_for(exec, rows, static_cast<std::int64_t>(2 * x.bytes())), rows, 1,
             [&](std::int64_t begin, std::int64_t end, int) {
               vec.scale_channels(elem, cols, x.data, gates, y.data, begin, end);
             });
}

// Chunks depend on the number of rows alone, so the threads do not change the result.
template <const VecKernels& vec>
void gate_backward(ExecContext& exec, GateFunction phi, View x, View ab, View dy, MutView dx, MutView dab) {
  check_channel_gate_backward(x, ab, dy, dx, dab);
  const std::int64_t rows = x.rows(), cols = x.cols();
  constexpr std::int64_t most_chunks = 256, least_rows = 64;
  const std::int64_t chunk = std::max(least_rows, (rows + most_chunks - 1) / most_chunks);
  const std::int64_t chunks = (rows + chunk - 1) / chunk, stride = floats_of_lines(cols);
  auto* gates = static_cast<float*>(exec.scratch(static_cast<std::size_t>((chunks + 2) * stride) * sizeof(float) + 1));
  float *dgate = gates + stride, *parts = dgate + stride;
  const ChannelGateArgs args = gate_args(phi, ab, cols);
  vec.channel_gates(args, gates);
  const Elem elem = elem_of(x);
  for_ranges(threads_for(exec, chunks, static_cast<std::int64_t>(3 * x.bytes())), chunks, 1,
             [&](std::int64_t begin, std::int64_t end, int) {
               for (std::int64_t i = begin; i < end; ++i) {
                 std::fill_n(parts + i * stride, cols, 0.0f);
                 vec.scale_channels_backward(elem, cols, x.data, gates, dy.data, dx.data, i * chunk,
                                             std::min(rows, (i + 1) * chunk), parts + i * stride);
               }
             });
  vec.sum_rows(parts, chunks, stride, false, dgate, 0, cols);
  vec.channel_gate_slopes(args, dgate, floats(dab), floats(dab) + cols);
}

template <const VecKernels& vec>
void boom(ExecContext& exec, View x, MutView y) {
  const std::int64_t chunks = check_boom(x, y);
  const Elem elem = elem_of(x);
  for_ranges(
      threads_for(exec, y.rows(), static_cast<std::int64_t>(4 * x.bytes())), y.rows(), 1,
      [&](std::int64_t begin, std::int64_t end, int) { vec.boom(elem, chunks, y.cols(), x.data, y.data, begin, end); });
}

template <const VecKernels& vec>
void boom_backward(ExecContext& exec, View x, View dy, MutView dx) {
  const std::int64_t chunks = check_boom(x, dy);
  check_given(dx, x.shape, x.dtype, "dx");
  const Elem elem = elem_of(x);
  for_ranges(threads_for(exec, dy.rows(), static_cast<std::int64_t>(4 * x.bytes())), dy.rows(), 1,
             [&](std::int64_t begin, std::int64_t end, int) {
               vec.boom_backward(elem, chunks, dy.cols(), x.data, dy.data, dx.data, begin, end);
             });
}

}  // namespace

void bind_channels(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.channel.gate.bind(gate<vec>);
    table.channel.gate_backward.bind(gate_backward<vec>);
    table.channel.boom.bind(boom<vec>);
    table.channel.boom_backward.bind(boom_backward<vec>);
  });
}

}  // namespace weft::cpu
