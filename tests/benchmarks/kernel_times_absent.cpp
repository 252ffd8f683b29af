#include "core/base/error.hpp"
#include "tests/benchmarks/kernel_times.hpp"

namespace weft {

void count_kernel_times() { fail("this build has no CUPTI: its header was not found"); }
double take_kernel_seconds() { return 0; }

}  // namespace weft
