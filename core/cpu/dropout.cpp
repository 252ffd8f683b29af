#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

template <const VecKernels& vec>
void apply(ExecContext& exec, View x, DropoutSpec spec, MutView y) {
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (rows == 0) return;
  check_given(x, x.shape, x.dtype, "x");
  check_given(y, x.shape, x.dtype, "y");
  const Elem elem = elem_of(x);
  const DropoutArgs args = dropout_args(spec);
  const int threads = threads_for(exec, rows, static_cast<std::int64_t>(2 * x.bytes()));
  for_ranges(threads, rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    if (args.active) return vec.dropout(elem, cols, x.data, args, y.data, begin, end);
    const auto skip = static_cast<std::size_t>(begin * cols) * size_of(x.dtype);
    vec.convert(elem, static_cast<const char*>(x.data) + skip, elem, static_cast<char*>(y.data) + skip,
                (end - begin) * cols);
  });
}

}  // namespace

void bind_dropout(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() { table.dropout.apply.bind(apply<vec>); });
}

}  // namespace weft::cpu
