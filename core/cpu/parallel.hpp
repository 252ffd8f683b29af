// How the CPU kernels share work among threads.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "core/kernels/exec.hpp"

namespace weft::cpu {

/// Work of fewer bytes than this is not worth waking a thread for.
inline constexpr std::int64_t bytes_worth_a_thread = 64 << 10;

/// How many threads share `bytes` of memory traffic that comes in `pieces`.
inline int threads_for(const ExecContext& exec, std::int64_t pieces, std::int64_t bytes) {
  return static_cast<int>(
      std::max<std::int64_t>(1, std::min({std::int64_t{exec.threads()}, pieces, bytes / bytes_worth_a_thread})));
}

/// Calls body(begin, end, thread) for equal parts of [0, count), one a thread, with borders at multiples of `align`.
template <class Body>
void for_ranges(int threads, std::int64_t count, std::int64_t align, Body&& body) {
  if (count <= 0) return;
  if (threads <= 1) return body(std::int64_t{0}, count, 0);
  const std::int64_t blocks = (count + align - 1) / align;
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), all = omp_get_num_threads();
    const std::int64_t begin = std::min(count, blocks * thread / all * align);
    const std::int64_t end = std::min(count, blocks * (thread + 1) / all * align);
    if (begin < end) body(begin, end, thread);
  }
}

/// Calls body(task, thread) for each task; a free thread takes the next one.
template <class Body>
void for_tasks(int threads, std::int64_t tasks, Body&& body) {
  if (threads <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t task = 0; task < tasks; ++task) body(task, omp_get_thread_num());
}

}  // namespace weft::cpu
