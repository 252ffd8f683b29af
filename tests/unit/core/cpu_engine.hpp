// A CPU device for tests.
#pragma once
#include <memory>

#include "core/cpu/backend.hpp"
#include "core/kernels/table.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft {

inline KernelTable bound_cpu_kernels(cpu::Isa isa) {
  KernelTable table;
  cpu::bind(table, kernel_abi_hash(), isa);
  return table;
}

struct CpuEngine {
  explicit CpuEngine(int threads = 1, cpu::Isa isa = cpu::best_isa())
      : kernels(bound_cpu_kernels(isa)), exec(kernels, *memory, threads) {
    exec.backend = cpu::make_state();
  }

  std::unique_ptr<Allocator> memory = make_caching_allocator(make_host_memory());
  KernelTable kernels;
  ExecContext exec;
};

}  // namespace weft
