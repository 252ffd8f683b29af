// The schedule of ring attention on as many ranks as are started, whatever cores there are: attention kernels compute, then wait
// until the time is over that a core of one's own would have taken. Prints, of rank 0, the milliseconds of a forward and
// backward pass, those within attention kernels, and the bytes sent in it, as medians.
// Usage: mpirun -n N weft_bench_ring f32|bf16 BANDWIDTH PASSES; bytes/s of the test network, 0: as fast as it is
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "core/base/clock.hpp"
#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "parallel/comm/mpi_runtime.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace {

using namespace weft;

constexpr std::int64_t tokens_a_rank = 64;
constexpr ops::HeadLayout heads{.heads = 4, .kv_heads = 4, .head_dim = 32};
constexpr double forward_seconds = 0.1;  // of all a rank's attention kernels; far above what they compute

/// Kernels are plain functions, so what they share stands here.
struct Pace {
  AttentionKernels computing;
  double seconds_a_pair = 0;  ///< of a query with a key it sees, forward
  double seconds = 0;         ///< all so far
} pace;

double visible_pairs(const View& q, const View& k, const AttentionSpec& spec) {
  const auto queries = static_cast<double>(q.shape[1]), keys = static_cast<double>(k.shape[1]);
  const double pairs = spec.causal ? queries * (keys + 1) / 2 : queries * keys;
  return static_cast<double>(q.shape[0] * q.shape[2]) * pairs;
}

void wait_until(double begin, double duration) {
  pace.seconds += duration;
  std::this_thread::sleep_for(std::chrono::duration<double>(begin + duration - seconds_now()));
}

void paced_forward(ExecContext& exec, View q, View k, View v, AttentionSpec spec, MutView out, MutView lse) {
  const double begin = seconds_now();
  pace.computing.forward(exec, q, k, v, spec, out, lse);
  wait_until(begin, visible_pairs(q, k, spec) * pace.seconds_a_pair);
}

void paced_backward(ExecContext& exec, View q, View k, View v, View out, View lse, View dout, AttentionSpec spec,
                    MutView dq, MutView dk, MutView dv) {
  const double begin = seconds_now();
  pace.computing.backward(exec, q, k, v, out, lse, dout, spec, dq, dk, dv);
  constexpr double backward_cost = 2.5;
  wait_until(begin, backward_cost * visible_pairs(q, k, spec) * pace.seconds_a_pair);
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

int main(int count, char** arguments) {
  CommLog log;
  MpiOptions options;
  if (count == 4) options.test_plan.network.bytes_per_second = std::atof(arguments[2]);
  MpiRuntime mpi(count, arguments, log, options);
  if (count != 4) {
    fmt::print(stderr, "usage: mpirun -n N weft_bench_ring f32|bf16 BANDWIDTH PASSES\n");
    return 2;
  }
  const DType dtype = std::string(arguments[1]) == "f32" ? DType::f32 : DType::bf16;
  const int ranks = mpi.size();
  const std::int64_t seq = tokens_a_rank * ranks;
  const auto memory = make_caching_allocator(make_host_memory());
  KernelTable kernels;
  cpu::bind(kernels, kernel_abi_hash(), cpu::best_isa());
  pace.computing = kernels.attention;
  const auto all_pairs = static_cast<double>(seq * (seq + 1) / 2 * heads.heads);
  pace.seconds_a_pair = forward_seconds * ranks / all_pairs;
  kernels.attention.forward.bind(paced_forward);
  kernels.attention.backward.bind(paced_backward);
  ExecContext exec(kernels, *memory, 1);
  exec.backend = cpu::make_state();
  Mesh mesh(mpi.world(), log, {.pp = 1, .dp = 1, .sp = ranks, .tp = 1});
  Communicator& group = mesh.comm(Axis::sp);

  Tape tape;
  OpContext cx{exec, &tape, dtype, {}, nullptr};
  cx.tokens = share_tokens(seq, token_order(SequenceAttention::ring, true), ranks, mpi.rank());
  const Tensor qkv = Tensor::empty(*memory, {1, cx.tokens.seq_local, heads.width()}, dtype, MemoryUse::activation);
  const Tensor dy =
      Tensor::empty(*memory, {1, cx.tokens.seq_local, heads.heads * heads.head_dim}, dtype, MemoryUse::activation);
  kernels.elementwise.fill(exec, 0.5f, qkv.mut());
  kernels.elementwise.fill(exec, 0.1f, dy.mut());
  std::vector<double> pass_ms, compute_ms, sent;
  for (int pass = 0; pass <= std::atoi(arguments[3]); ++pass) {
    mpi.world().barrier().wait();
    const auto sent_before = static_cast<double>(log.wire_bytes());
    pace.seconds = 0;
    const double begin = seconds_now();
    tape.begin(MicroBatch::last);
    Tensor x = qkv;
    tape.watch(x);
    const Tensor y = ring_attention(cx, group, x, heads, {}, token_order(SequenceAttention::ring, true));
    tape.backward(exec, y, dy);
    if (pass == 0) continue;  // the first one allocates
    pass_ms.push_back(1e3 * (seconds_now() - begin));
    compute_ms.push_back(1e3 * pace.seconds);
    sent.push_back(static_cast<double>(log.wire_bytes()) - sent_before);
  }
  mpi.world().barrier().wait();
  if (mpi.rank() == 0) fmt::print("{:.2f} {:.2f} {:.0f}\n", median(pass_ms), median(compute_ms), median(sent));
}
