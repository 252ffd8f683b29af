#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

constexpr std::int64_t query_tile = 64;  // a part is no less than a tile of queries, or of keys

void take_strides(const View& view, std::int64_t (&strides)[3]) {
  for (int dim = 0; dim < 3; ++dim) strides[dim] = view.strides[dim];
}

AttentionArgs common_args(const View& q, const View& k, const View& v, const AttentionSpec& spec) {
  AttentionArgs args{};
  take_strides(q, args.q_strides);
  take_strides(k, args.k_strides);
  take_strides(v, args.v_strides);
  args.elem = elem_of(q);
  args.batch = q.shape[0];
  args.q_len = q.shape[1];
  args.heads = q.shape[2];
  args.head_dim = q.shape[3];
  args.k_len = k.shape[1];
  args.kv_heads = k.shape[2];
  args.causal = spec.causal;
  args.scale = spec.scale;
  args.q_begin = spec.q_begin;
  args.k_begin = spec.k_begin;
  const DropoutArgs dropout = dropout_args(spec.dropout);
  args.dropout = dropout.active;
  args.dropout_rule = dropout.rule;
  args.first_sequence = spec.dropout.rows.first_sequence;
  args.head_begin = spec.head_begin;
  args.heads_global = spec.heads_global;
  args.seq_global = spec.seq_global;
  args.q = q.data;
  args.k = k.data;
  args.v = v.data;
  return args;
}

// Into how many parts each (batch, key-value head) goes so that no thread waits long for the last.
std::int64_t parts_of(std::int64_t pairs, std::int64_t tiles, int threads) {
  if (threads == 1 || pairs % threads == 0 || pairs >= 8 * threads) return 1;
  return std::min(tiles, (4 * threads + pairs - 1) / pairs);
}

std::int64_t tiles_of(std::int64_t length) { return (length + query_tile - 1) / query_tile; }

std::size_t lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

void take_positions(const View& q, const View& k, const RelativePositions& positions, const AttentionSpec& spec,
                    AttentionArgs& args) {
  check_relative_positions(q, k, positions, spec);
  args.r = positions.r.data;
  args.r_strides[0] = positions.r.strides[0];
  args.r_strides[1] = positions.r.strides[1];
  args.r_first = positions.first;
  args.r_len = positions.r.shape[0];
  args.content_bias = floats(positions.content_bias);
  args.place_bias = floats(positions.place_bias);
}

template <const VecKernels& vec>
void run_forward(ExecContext& exec, AttentionArgs& args, MutView out, MutView lse) {
  take_strides(out, args.out_strides);
  if (out.numel() == 0) return;
  args.out_mut = out.data;
  args.lse_mut = floats(lse);
  const std::int64_t pairs = args.batch * args.kv_heads, bands = args.heads / args.kv_heads * tiles_of(args.q_len);
  const std::int64_t bytes = pairs * (args.heads / args.kv_heads) * args.q_len * args.k_len * args.head_dim;
  const int threads = threads_for(exec, pairs * bands, bytes);
  const std::int64_t parts = parts_of(pairs, bands, threads);
  const std::size_t each = lines(vec.attention_forward_scratch(args));
  auto* scratch = static_cast<char*>(exec.scratch(each * static_cast<std::size_t>(threads)));
  for_tasks(threads, pairs * parts, [&](std::int64_t task, int thread) {
    vec.attention_forward(args, {.pair = task / parts,
                                 .part = task % parts,
                                 .parts = parts,
                                 .scratch = scratch + each * static_cast<std::size_t>(thread),
                                 .dq_partial = nullptr,
                                 .dr_partial = nullptr});
  });
}

template <const VecKernels& vec>
void forward(ExecContext& exec, View q, View k, View v, AttentionSpec spec, MutView out, MutView lse) {
  check_attention_forward(q, k, v, out, lse);
  AttentionArgs args = common_args(q, k, v, spec);
  run_forward<vec>(exec, args, out, lse);
}

template <const VecKernels& vec>
void relative_forward(ExecContext& exec, View q, View k, View v, RelativePositions positions, AttentionSpec spec,
                      MutView out, MutView lse) {
  check_attention_forward(q, k, v, out, lse);
  AttentionArgs args = common_args(q, k, v, spec);
  take_positions(q, k, positions, spec, args);
  run_forward<vec>(exec, args, out, lse);
}

AttentionArgs backward_args(const View& q, const View& k, const View& v, const View& out, const View& lse,
                            const View& dout, const AttentionSpec& spec, const MutView& dq, const MutView& dk,
                            const MutView& dv) {
  check_attention_backward(q, k, v, out, lse, dout, dq, dk, dv);
  AttentionArgs args = common_args(q, k, v, spec);
  take_strides(out, args.out_strides);
  take_strides(dout, args.dout_strides);
  take_strides(dq, args.dq_strides);
  take_strides(dk, args.dk_strides);
  take_strides(dv, args.dv_strides);
  args.out = out.data;
  args.dout = dout.data;
  args.lse = floats(lse);
  args.dq = dq.data;
  args.dk = dk.data;
  args.dv = dv.data;
  return args;
}

// How a backward pass is shared out. A task has a part of a key-value head's key tiles in a group of sequences, one after
// another, so that dr is summed over the group before it is over the groups.
struct BackwardShares {
  std::int64_t pairs, parts, groups;
  int threads;

  BackwardShares(const ExecContext& exec, const AttentionArgs& args)
      : pairs(args.batch * args.kv_heads), parts(1), groups(args.batch) {
    const std::int64_t tiles = std::max<std::int64_t>(1, tiles_of(args.k_len));
    const std::int64_t bytes = pairs * (args.heads / args.kv_heads) * args.q_len * args.k_len * args.head_dim;
    threads = threads_for(exec, pairs * tiles, bytes);
    parts = parts_of(pairs, tiles, threads);
    if (args.r && args.batch > 0)
      groups = std::min(args.batch, (4 * threads + args.kv_heads * parts - 1) / (args.kv_heads * parts));
  }
};

struct BackwardScratch {
  float *dr_partials, *biases;
  std::int64_t dr_stride, bias_stride;  // from a task's to the next, from a pair's to the next
};

template <const VecKernels& vec>
BackwardScratch run_backward(ExecContext& exec, const AttentionArgs& args, const BackwardShares& shares) {
  const auto [pairs, parts, groups, threads] = shares;
  const std::int64_t tasks = groups * args.kv_heads * parts;
  const std::size_t each = lines(vec.attention_backward_scratch(args));
  const std::size_t partial = lines(static_cast<std::size_t>(vec.attention_dq_partial(args)) * sizeof(float));
  const std::size_t distances =
      args.r ? lines(static_cast<std::size_t>(vec.attention_dr_partial(args)) * sizeof(float)) : 0;
  const std::size_t bias_rows = static_cast<std::size_t>(args.heads / args.kv_heads * 2);
  const std::size_t bias = args.r ? bias_rows * lines(static_cast<std::size_t>(args.head_dim) * sizeof(float)) : 0;
  // A pair in one part finishes its dq at once, from its thread's own partial.
  const auto partials = static_cast<std::size_t>(parts == 1 ? threads : pairs * parts);
  const std::size_t before = each * static_cast<std::size_t>(threads);
  const std::size_t dr_at = before + partial * partials, bias_at = dr_at + distances * static_cast<std::size_t>(tasks);
  auto* scratch = static_cast<char*>(exec.scratch(bias_at + bias * static_cast<std::size_t>(pairs)));
  const auto bias_of = [&](std::int64_t pair) {
    return bias ? reinterpret_cast<float*>(scratch + bias_at + bias * static_cast<std::size_t>(pair)) : nullptr;
  };
  const auto sum_of = [&](std::int64_t index) {
    return reinterpret_cast<float*>(scratch + before + partial * static_cast<std::size_t>(index));
  };
  for_tasks(threads, tasks, [&](std::int64_t task, int thread) {
    const std::int64_t part = task % parts, kv = task / parts % args.kv_heads, group = task / parts / args.kv_heads;
    const std::int64_t at = (kv * groups + group) * parts + part;
    auto* dr = reinterpret_cast<float*>(scratch + dr_at + distances * static_cast<std::size_t>(at));
    std::fill_n(dr, distances / sizeof(float), 0.0f);
    for (std::int64_t b = args.batch * group / groups; b < args.batch * (group + 1) / groups; ++b) {
      const std::int64_t pair = b * args.kv_heads + kv;
      float* sum = sum_of(parts == 1 ? thread : pair * parts + part);
      vec.attention_backward(args, {.pair = pair,
                                    .part = part,
                                    .parts = parts,
                                    .scratch = scratch + each * static_cast<std::size_t>(thread),
                                    .dq_partial = sum,
                                    .dr_partial = dr});
      if (parts == 1) vec.attention_dq(args, pair, sum, 1, bias_of(pair));
    }
  });
  if (parts > 1)
    for_tasks(threads, pairs, [&](std::int64_t pair, int) {
      vec.attention_dq(args, pair, sum_of(pair * parts), parts, bias_of(pair));
    });
  return {reinterpret_cast<float*>(scratch + dr_at), reinterpret_cast<float*>(scratch + bias_at),
          static_cast<std::int64_t>(distances / sizeof(float)), static_cast<std::int64_t>(bias / sizeof(float))};
}

template <const VecKernels& vec>
void backward(ExecContext& exec, View q, View k, View v, View out, View lse, View dout, AttentionSpec spec, MutView dq,
              MutView dk, MutView dv) {
  const AttentionArgs args = backward_args(q, k, v, out, lse, dout, spec, dq, dk, dv);
  if (args.batch == 0 || args.head_dim == 0) return;
  run_backward<vec>(exec, args, BackwardShares(exec, args));
}

template <const VecKernels& vec>
void relative_backward(ExecContext& exec, View q, View k, View v, RelativePositions positions, View out, View lse,
                       View dout, AttentionSpec spec, MutView dq, MutView dk, MutView dv, RelativeGradients gradients) {
  AttentionArgs args = backward_args(q, k, v, out, lse, dout, spec, dq, dk, dv);
  take_positions(q, k, positions, spec, args);
  check_relative_gradients(positions, gradients);
  args.dr = gradients.r.data;
  args.dr_strides[0] = gradients.r.strides[0];
  args.dr_strides[1] = gradients.r.strides[1];
  if (args.head_dim == 0) return;
  const BackwardShares shares(exec, args);
  const BackwardScratch scratch = run_backward<vec>(exec, args, shares);
  const std::int64_t heads_of_kv = args.heads / args.kv_heads, partials = shares.groups * shares.parts;
  const std::int64_t row = scratch.bias_stride / (2 * heads_of_kv);
  for_tasks(shares.threads, args.heads, [&](std::int64_t head, int) {
    const std::int64_t kv = head / heads_of_kv;
    vec.attention_dr(args, head, scratch.dr_partials + kv * partials * scratch.dr_stride, scratch.dr_stride, partials);
    for (const auto& [to, by_r] : {std::pair{gradients.content_bias, 0}, {gradients.place_bias, 1}})
      for (std::int64_t c = 0; c < args.head_dim; ++c) {
        const float* from = scratch.biases + kv * scratch.bias_stride + (head % heads_of_kv * 2 + by_r) * row + c;
        float sum = 0;
        for (std::int64_t b = 0; b < args.batch; ++b) sum += from[b * args.kv_heads * scratch.bias_stride];
        float& at = floats(to)[head * args.head_dim + c];
        at = sum * args.scale + (gradients.write == Write::add ? at : 0.0f);
      }
  });
}

template <const VecKernels& vec>
void merge(ExecContext& exec, View part, View part_lse, MutView out, MutView lse) {
  check_attention_merge(part, part_lse, out, lse);
  const std::int64_t rows = part.shape[0] * part.shape[1] * part.shape[2];
  if (part.numel() == 0) return;
  AttentionMergeArgs args{.elem = elem_of(part),
                          .tokens = part.shape[1],
                          .heads = part.shape[2],
                          .head_dim = part.shape[3],
                          .part = part.data,
                          .part_lse = floats(part_lse),
                          .out = floats(out),
                          .lse = floats(lse),
                          .out_strides = {},
                          .lse_strides = {}};
  take_strides(out, args.out_strides);
  take_strides(lse, args.lse_strides);
  for_ranges(threads_for(exec, rows, static_cast<std::int64_t>(part.bytes() + 2 * out.bytes())), rows, 1,
             [&](std::int64_t begin, std::int64_t end, int) { vec.attention_merge(args, begin, end); });
}

}  // namespace

void bind_attention(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.attention.forward.bind(forward<vec>);
    table.attention.backward.bind(backward<vec>);
    table.attention.relative_forward.bind(relative_forward<vec>);
    table.attention.relative_backward.bind(relative_backward<vec>);
    table.attention.merge.bind(merge<vec>);
  });
}

}  // namespace weft::cpu
