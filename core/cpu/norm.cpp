#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

template <const VecKernels& vec>
void forward(ExecContext& exec, NormKind kind, View x, View branch, DropoutSpec dropout, View gain, View bias,
             float eps, MutView sum, MutView y, MutView mean, MutView rstd) {
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (rows == 0) return;
  check_norm_forward(x, branch, gain, bias, sum, y, mean, rstd);
  const NormForwardArgs args{.rms = kind == NormKind::rms,
                             .elem = elem_of(x),
                             .cols = cols,
                             .x = x.data,
                             .branch = branch.data,
                             .dropout = dropout_args(dropout),
                             .gain = floats(gain),
                             .bias = floats(bias),
                             .eps = eps,
                             .sum = sum.data,
                             .y = y.data,
                             .mean = kind == NormKind::rms ? nullptr : floats(mean),
                             .rstd = floats(rstd)};
  const auto bytes = static_cast<std::int64_t>(x.bytes()) * (branch ? 4 : 2);
  for_ranges(threads_for(exec, rows, bytes), rows, 1,
             [&](std::int64_t begin, std::int64_t end, int) { vec.norm_forward(args, begin, end); });
}

// dgain and dbias are summed over chunks of rows that depend on the number of rows alone, so the threads do not change
// the result.
template <const VecKernels& vec>
void backward(ExecContext& exec, NormKind kind, View dy, View sum, View gain, View mean, View rstd, View dsum,
              DropoutSpec dropout, Write write, MutView dx, MutView dbranch, MutView dgain, MutView dbias) {
  const std::int64_t rows = sum.rows(), cols = sum.cols();
  check_norm_backward(kind, dy, sum, gain, mean, rstd, dsum, dx, dbranch, dgain, dbias);
  const NormBackwardArgs args{.rms = kind == NormKind::rms,
                              .elem = elem_of(sum),
                              .cols = cols,
                              .dy = dy.data,
                              .sum = sum.data,
                              .gain = floats(gain),
                              .mean = kind == NormKind::rms ? nullptr : floats(mean),
                              .rstd = floats(rstd),
                              .dsum = dsum.data,
                              .dropout = dropout_args(dropout),
                              .dx = dx.data,
                              .dbranch = dbranch.data};
  constexpr std::int64_t most_chunks = 256, least_rows = 64;
  const std::int64_t chunk = std::max(least_rows, (rows + most_chunks - 1) / most_chunks);
  const std::int64_t chunks = (rows + chunk - 1) / chunk, stride = (cols + 15) / 16 * 16;
  auto* gains = static_cast<float*>(exec.scratch(static_cast<std::size_t>(2 * chunks * stride) * sizeof(float) + 1));
  float* biases = gains + chunks * stride;
  const auto bytes = static_cast<std::int64_t>(sum.bytes()) * 4;
  for_ranges(threads_for(exec, chunks, bytes), chunks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* db = dbias ? biases + i * stride : nullptr;
      std::fill_n(gains + i * stride, cols, 0.0f);
      if (db) std::fill_n(db, cols, 0.0f);
      vec.norm_backward(args, i * chunk, std::min(rows, (i + 1) * chunk), gains + i * stride, db);
    }
  });
  const bool add = write == Write::add;
  vec.sum_rows(gains, chunks, stride, add, floats(dgain), 0, cols);
  if (dbias) vec.sum_rows(biases, chunks, stride, add, floats(dbias), 0, cols);
}

}  // namespace

void bind_norm(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.norm.forward.bind(forward<vec>);
    table.norm.backward.bind(backward<vec>);
  });
}

}  // namespace weft::cpu
