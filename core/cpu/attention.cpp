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

template <const VecKernels& vec>
void forward(ExecContext& exec, View q, View k, View v, AttentionSpec spec, MutView out, MutView lse) {
  check_attention_forward(q, k, v, out, lse);
  AttentionArgs args = common_args(q, k, v, spec);
  take_strides(out, args.out_strides);
  if (q.numel() == 0) return;
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
                                 .dq_partial = nullptr});
  });
}

template <const VecKernels& vec>
void backward(ExecContext& exec, View q, View k, View v, View out, View lse, View dout, AttentionSpec spec, MutView dq,
              MutView dk, MutView dv) {
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
  if (args.batch == 0 || args.head_dim == 0) return;
  const std::int64_t pairs = args.batch * args.kv_heads, tiles = std::max<std::int64_t>(1, tiles_of(args.k_len));
  const std::int64_t bytes = pairs * (args.heads / args.kv_heads) * args.q_len * args.k_len * args.head_dim;
  const int threads = threads_for(exec, pairs * tiles, bytes);
  const std::int64_t parts = parts_of(pairs, tiles, threads);
  const std::size_t each = lines(vec.attention_backward_scratch(args));
  const std::size_t partial = lines(static_cast<std::size_t>(vec.attention_dq_partial(args)) * sizeof(float));
  // A pair in one part finishes its dq at once, from its thread's own partial.
  const std::size_t partials = static_cast<std::size_t>(parts == 1 ? threads : pairs * parts);
  auto* scratch = static_cast<char*>(exec.scratch(each * static_cast<std::size_t>(threads) + partial * partials));
  char* sums = scratch + each * static_cast<std::size_t>(threads);
  for_tasks(threads, pairs * parts, [&](std::int64_t task, int thread) {
    auto* sum = reinterpret_cast<float*>(sums + partial * static_cast<std::size_t>(parts == 1 ? thread : task));
    vec.attention_backward(args, {.pair = task / parts,
                                  .part = task % parts,
                                  .parts = parts,
                                  .scratch = scratch + each * static_cast<std::size_t>(thread),
                                  .dq_partial = sum});
    if (parts == 1) vec.attention_dq(args, task, sum, 1);
  });
  if (parts == 1) return;
  for_tasks(threads, pairs, [&](std::int64_t pair, int) {
    vec.attention_dq(args, pair, reinterpret_cast<float*>(sums + partial * static_cast<std::size_t>(pair * parts)),
                     parts);
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
    table.attention.merge.bind(merge<vec>);
  });
}

}  // namespace weft::cpu
