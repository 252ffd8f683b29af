// oneDNN takes its number of threads from the calling thread's OpenMP setting.
#pragma once
#include <omp.h>

namespace weft::cpu {

class DnnlThreads {
 public:
  explicit DnnlThreads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~DnnlThreads() { omp_set_num_threads(before_); }
  DnnlThreads(const DnnlThreads&) = delete;
  DnnlThreads& operator=(const DnnlThreads&) = delete;

 private:
  int before_;
};

}  // namespace weft::cpu
