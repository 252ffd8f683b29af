// Elementwise recurrences: step by step beside parallel pieces of the sequence, over batch, width and length. Both are timed
// in turns, so that a busy machine slows both; the ratio of their medians is what counts. Rates are bytes that must move
// (scan_cost) over the median, beside what a copy moves in the same run. With one thread its processor time is taken, and the
// ratio is what four pieces cost beside one: on n threads of their own pieces gain about n times that.
// Usage: weft_bench_scan [threads] [repeats] [f32|bf16]
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <vector>

#include "core/base/clock.hpp"
#include "core/base/philox.hpp"
#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "core/tensor/tensor.hpp"

namespace weft {
namespace {

double clock_now(int threads) {
  if (threads > 1) return seconds_now();
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Point {
  std::int64_t batch, width, steps;
};

struct Setup {
  ExecContext& exec;
  Allocator& memory;
  DType dtype;
  int repeats;

  Tensor random(Shape shape, DType type, std::uint64_t seed) const {
    const Tensor values = Tensor::empty(memory, shape, DType::f32, MemoryUse::activation);
    auto* data = values.mut().as<float>();
    for (std::int64_t i = 0; i < values.numel(); ++i)  // cheap, and spread over gates that open and close
      data[i] = 6 * uniform(philox_word({static_cast<std::uint32_t>(seed), 1}, static_cast<std::uint64_t>(i))) - 3;
    const Tensor result = Tensor::empty(memory, shape, type, MemoryUse::activation);
    exec.kernels().elementwise.copy(exec, values.view(), result.mut());
    return result;
  }
  /// Median seconds of each body, taken in turns.
  std::vector<double> medians(const std::vector<std::function<void()>>& bodies) const {
    std::vector<std::vector<double>> seconds(bodies.size());
    for (int i = -1; i < repeats; ++i)
      for (std::size_t k = 0; k < bodies.size(); ++k) {
        const double begin = clock_now(exec.threads());
        bodies[k]();
        if (i >= 0) seconds[k].push_back(clock_now(exec.threads()) - begin);
      }
    std::vector<double> result;
    for (auto& each : seconds) {
      std::ranges::sort(each);
      result.push_back(each[each.size() / 2]);
    }
    return result;
  }
};

std::string_view name_of(ScanCell cell) {
  constexpr std::array<std::string_view, 7> names = {"sru",    "sru-affine", "qrnn-f", "qrnn-fo",
                                                     "mingru", "minlstm",    "mean"};
  return names[static_cast<std::size_t>(cell)];
}

void measure(const Setup& setup, ScanCell cell, Point at) {
  const ScanShape shape{at.batch, at.steps, at.width};
  const bool sru = cell == ScanCell::sru || cell == ScanCell::sru_affine;
  const Shape sequence{at.batch, at.steps, at.width}, state{at.batch, at.width};
  const auto make = [&](Shape of, DType type) { return Tensor::empty(setup.memory, of, type, MemoryUse::activation); };
  const Tensor u = setup.random({at.batch, at.steps, traits_of(cell).gates * at.width}, setup.dtype, 1);
  const Tensor x = setup.random(sequence, setup.dtype, 2), dh = setup.random(sequence, setup.dtype, 3);
  const Tensor h = make(sequence, setup.dtype), dx = make(sequence, setup.dtype), du = make(u.shape(), setup.dtype);
  const Tensor states = make({at.batch, scan_chunks(at.steps), at.width}, DType::f32), last = make(state, DType::f32);
  const Tensor v = setup.random({4, at.width}, DType::f32, 4), dv = make({4, at.width}, DType::f32);
  ScanOperands in;
  ScanGradients out;
  in.u = u.view();
  out.du = du.mut();
  if (sru) {
    in.skip = x.view();
    out.dskip = dx.mut();
    in.b_f = v.view().slice(2, 3).reshaped({at.width});
    in.b_r = v.view().slice(3, 4).reshaped({at.width});
    out.db_f = dv.mut().slice(2, 3);
    out.db_r = dv.mut().slice(3, 4);
  }
  if (cell == ScanCell::sru) {
    in.v_f = v.view().slice(0, 1).reshaped({at.width});
    in.v_r = v.view().slice(1, 2).reshaped({at.width});
    out.dv_f = dv.mut().slice(0, 1);
    out.dv_r = dv.mut().slice(1, 2);
  }
  ScanSpec serial, pieces, chosen;
  serial.cell = pieces.cell = chosen.cell = cell;
  choose_scan_spans(chosen, shape, setup.exec.device(), setup.exec.threads());
  const std::int64_t parts = setup.exec.threads() > 1 ? setup.exec.threads() : 4, even = (at.steps + parts - 1) / parts;
  pieces.backward_span = scan_chunks(even) * scan_chunk;
  if (traits_of(cell).affine) pieces.forward_span = pieces.backward_span;
  const auto& kernels = setup.exec.kernels();
  const auto forward = [&](const ScanSpec& spec) {
    return [&] { kernels.scan.forward(setup.exec, spec, in, {}, h.mut(), states.mut(), last.mut()); };
  };
  const auto backward = [&](const ScanSpec& spec) {
    return [&] { kernels.scan.backward(setup.exec, spec, in, states.view(), dh.view(), {}, out); };
  };
  const auto copied = [&] { kernels.elementwise.copy(setup.exec, u.view(), du.mut()); };
  const std::vector<double> t =
      setup.medians({forward(serial), forward(pieces), backward(serial), backward(pieces), copied});
  const double copy_rate = 2 * static_cast<double>(u.view().bytes()) / t[4];
  const auto rate = [&](ScanPass pass, double seconds) {
    return scan_cost(serial, shape, setup.dtype, pass).bytes / seconds / copy_rate;
  };
  fmt::print("{:>10} {:>5} {:>5} {:>6}   {:8.3f} {:5.2f} {:6.2f} {:>7}   {:8.3f} {:5.2f} {:6.2f} {:>7}\n",
             name_of(cell), at.batch, at.width, at.steps, 1e3 * t[0], rate(ScanPass::forward, t[0]), t[0] / t[1],
             chosen.forward_span ? "pieces" : "steps", 1e3 * t[2], rate(ScanPass::backward, t[2]), t[2] / t[3],
             chosen.backward_span ? "pieces" : "steps");
}

}  // namespace
}  // namespace weft

int main(int count, char** arguments) {
  using namespace weft;
  const int threads = count > 1 ? std::atoi(arguments[1]) : 2, repeats = count > 2 ? std::atoi(arguments[2]) : 7;
  const DType dtype = count > 3 && std::string_view(arguments[3]) == "f32" ? DType::f32 : DType::bf16;
  const auto memory = make_caching_allocator(make_host_memory());
  KernelTable kernels;
  cpu::bind(kernels, kernel_abi_hash(), cpu::best_isa());
  ExecContext exec(kernels, *memory, threads);
  exec.backend = cpu::make_state();
  fmt::print("{}, {} threads, {}; rate: of a copy's; ratio: step by step over pieces\n", cpu::name_of(cpu::best_isa()),
             threads, name_of(dtype));
  fmt::print("{:>10} {:>5} {:>5} {:>6}   {:>8} {:>5} {:>6} {:>7}   {:>8} {:>5} {:>6} {:>7}\n", "cell", "batch", "width",
             "length", "forw. ms", "rate", "ratio", "chosen", "back. ms", "rate", "ratio", "chosen");
  const Setup setup{exec, *memory, dtype, repeats};
  for (const ScanCell cell : {ScanCell::sru, ScanCell::sru_affine, ScanCell::qrnn_fo, ScanCell::mingru})
    for (const Point at : {Point{1, 64, 128},
                           {1, 64, 256},
                           {1, 64, 512},
                           {1, 64, 4096},
                           {1, 64, 32768},
                           {1, 512, 4096},
                           {8, 512, 256},
                           {32, 512, 256},
                           {8, 1024, 1024}})
      measure(setup, cell, at);
}
