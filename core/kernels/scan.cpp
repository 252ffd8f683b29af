#include "core/kernels/scan.hpp"

#include <algorithm>
#include <bit>

namespace weft {
namespace {

double levels(std::int64_t count) { return count < 2 ? 0.0 : std::bit_width(static_cast<std::uint64_t>(count - 1)); }

// Workers that share the sequences' channels: what is enough of them, and the steps that make a piece worth having.
struct Workers {
  std::int64_t there, needed, least_steps;
};

Workers workers_of(ScanShape shape, DeviceId device, int threads) {
  constexpr std::int64_t cpu_channels = 64, gpu_threads = 132 * 1024;
  if (device.kind == DeviceKind::cpu)
    return {shape.batch * ((shape.channels + cpu_channels - 1) / cpu_channels), threads, 8 * scan_chunk};
  return {shape.batch * shape.channels, gpu_threads, 2 * scan_chunk};
}

std::int64_t span_of(ScanShape shape, Workers workers) {
  const std::int64_t pieces = workers.needed / std::max<std::int64_t>(1, workers.there);
  if (pieces < 2) return 0;
  const std::int64_t even = (shape.steps + pieces - 1) / pieces;
  const std::int64_t span = std::max(workers.least_steps, scan_chunks(even) * scan_chunk);
  return span >= shape.steps ? 0 : span;
}

}  // namespace

void choose_scan_spans(ScanSpec& spec, ScanShape shape, DeviceId device, int threads) {
  spec.backward_span = span_of(shape, workers_of(shape, device, threads));
  spec.forward_span = traits_of(spec.cell).affine ? spec.backward_span : 0;
}

Cost scan_cost(const ScanSpec& spec, ScanShape shape, DType dtype, ScanPass pass) {
  const ScanCellTraits traits = traits_of(spec.cell);
  const bool sru = spec.cell == ScanCell::sru || spec.cell == ScanCell::sru_affine, forward = pass == ScanPass::forward;
  const double count = static_cast<double>(shape.batch * shape.steps * shape.channels);
  // 10 FLOPs for each sigmoid or tanh, about 4 for what a step does with it; backward twice that.
  const double flops = count * (14.0 * traits.gates) * (forward ? 1 : 2);
  const std::int64_t span = forward ? spec.forward_span : spec.backward_span;
  const std::int64_t pieces = span == 0 ? 1 : (shape.steps + span - 1) / span;
  // u, x′ and h once; the backward pass reads u, x′, dh and writes du, dx′; pieces read u (and dh) once more.
  const double columns = traits.gates + (sru ? 1 : 0);
  double moved = forward ? columns + 1 : 2 * columns + 1;
  if (pieces > 1) moved += forward ? traits.gates : columns + 1;
  const double states = 4.0 * static_cast<double>(shape.batch * shape.channels * (scan_chunks(shape.steps) + 2));
  const auto steps = static_cast<double>(shape.steps);
  const bool affine = traits.affine || !forward;
  return {flops, count * moved * static_cast<double>(size_of(dtype)) + states,
          span == 0 ? steps : static_cast<double>(span) + levels(pieces),
          spec.cell == ScanCell::mean ? 1.0
          : affine                    ? std::max(1.0, levels(shape.steps))
                                      : steps};
}

}  // namespace weft
