#include "core/cuda/cudnn/attention_graph.hpp"

namespace weft::cuda {

namespace {

using enum AttentionTensor;
using Ref = CudnnGraph::Ref;

AttentionGraph::Operand operand(const View& view) { return {view.strides[0], view.strides[1], view.strides[2]}; }

template <class Call>
AttentionGraph shape_of_call(const Call& call) {
  const AttentionCall described = describe(call);
  AttentionGraph graph;
  graph.causal = described.mask == AttentionMask::causal;
  graph.has_lse = static_cast<bool>(call.lse);
  graph.batch = described.batch;
  graph.q_len = described.q_len;
  graph.k_len = described.k_len;
  graph.heads = described.heads;
  graph.kv_heads = described.kv_heads;
  graph.head_dim = described.head_dim;
  graph[q] = operand(call.q);
  graph[k] = operand(call.k);
  graph[v] = operand(call.v);
  graph[out] = operand(call.out);
  return graph;
}

/// Adds tensors of a call to a graph.
class Operands {
 public:
  Operands(CudnnGraph& to, const AttentionGraph& from) : to_(to), from_(from) {}

  /// [B, H, Tq, hd] and [B, Hkv, Tk, hd].
  Ref queries(AttentionTensor tensor) const { return add(tensor, from_.heads, from_.q_len); }
  Ref keys(AttentionTensor tensor) const { return add(tensor, from_.kv_heads, from_.k_len); }
  /// [B, Hkv, hd, Tk].
  Ref keys_transposed(AttentionTensor tensor) const {
    const auto [batch, row, head] = from_[tensor];
    return to_.memory(id(tensor), {from_.batch, from_.kv_heads, from_.head_dim, from_.k_len}, {batch, head, 1, row},
                      CUDNN_DATA_BFLOAT16);
  }
  /// f32 [B, H, Tq, 1].
  Ref row_values(AttentionTensor tensor) const {
    const Dims4 dims = {from_.batch, from_.heads, from_.q_len, 1};
    return to_.memory(id(tensor), dims, packed_strides(dims), CUDNN_DATA_FLOAT);
  }
  Ref value(AttentionTensor tensor) const { return to_.value(id(tensor)); }

 private:
  static std::int64_t id(AttentionTensor tensor) { return static_cast<std::int64_t>(tensor); }
  Ref add(AttentionTensor tensor, std::int64_t heads, std::int64_t length) const {
    const auto [batch, row, head] = from_[tensor];
    return to_.memory(id(tensor), {from_.batch, heads, length, from_.head_dim}, {batch, head, row, 1},
                      CUDNN_DATA_BFLOAT16);
  }

  CudnnGraph& to_;
  const AttentionGraph& from_;
};

Ref masked(CudnnGraph& graph, const Operands& operands, Ref scores) {
  Ref hidden = operands.value(minus_infinity);
  return graph.select(graph.lower_triangle(scores), scores, hidden);
}

// S = scale·Q·Kᵀ, out = softmax(S)·V, lse = max + log Σ exp(S − max).
void build_forward(CudnnGraph& graph, const Operands& operands, const AttentionGraph& from) {
  Ref factor = operands.value(scale);
  const CudnnGraph::Node* scores =
      &graph.pointwise(CUDNN_POINTWISE_MUL, graph.matmul(operands.queries(q), operands.keys_transposed(k)), factor);
  if (from.causal) scores = &masked(graph, operands, *scores);
  Ref most = graph.reduce_rows(CUDNN_REDUCE_TENSOR_MAX, *scores);
  Ref exponentials = graph.pointwise(CUDNN_POINTWISE_EXP, graph.pointwise(CUDNN_POINTWISE_SUB, *scores, most));
  Ref sum = graph.reduce_rows(CUDNN_REDUCE_TENSOR_ADD, exponentials);
  // cuDNN recognises the graph by its logarithm even where nobody asked for that.
  Ref logarithm = graph.pointwise(CUDNN_POINTWISE_LOG, sum);
  if (from.has_lse)
    graph.pointwise(CUDNN_POINTWISE_ADD, most, logarithm, operands.row_values(lse));
  else
    graph.pointwise(CUDNN_POINTWISE_ADD, most, logarithm);
  Ref probabilities = graph.pointwise(CUDNN_POINTWISE_DIV, exponentials, sum, CUDNN_DATA_BFLOAT16);
  graph.matmul(probabilities, operands.keys(v), operands.queries(out));
}

// P = exp(S − lse), dV = Pᵀ·dO, dS = scale·P∘(dO·Vᵀ − Σ dO∘O), dK = dSᵀ·Q, dQ = dS·K; gradients of keys and values are
// summed over the query heads that share them. That dQ is a product over all keys is what fixes the order of its sums.
void build_backward(CudnnGraph& graph, const Operands& operands, const AttentionGraph& from) {
  Ref queries = operands.queries(q), values = operands.keys_transposed(v), keys = operands.keys_transposed(k);
  Ref gradient = operands.queries(dout), factor = operands.value(scale);
  Ref sums = operands.row_values(row_sums);
  Ref products = graph.pointwise(CUDNN_POINTWISE_MUL, gradient, operands.queries(out));
  // Where there is dropout, its factor stands in the place of this one.
  graph.pointwise(CUDNN_POINTWISE_MUL, graph.reduce_rows(CUDNN_REDUCE_TENSOR_ADD, products), operands.value(one), sums);

  const auto into_keys = [&](Ref weights, Ref rows, AttentionTensor tensor) {
    if (from.heads == from.kv_heads)
      graph.matmul(weights, rows, operands.keys(tensor));
    else
      graph.sum_heads(graph.matmul(weights, rows, CUDNN_DATA_BFLOAT16), operands.keys(tensor));
  };
  Ref scores = graph.pointwise(CUDNN_POINTWISE_MUL, graph.matmul(queries, keys), factor);
  const CudnnGraph::Node* logs = &graph.pointwise(CUDNN_POINTWISE_SUB, scores, operands.row_values(lse));
  if (from.causal) logs = &masked(graph, operands, *logs);
  Ref probabilities = graph.pointwise(CUDNN_POINTWISE_EXP, *logs);
  into_keys(graph.transposed(probabilities), gradient, dv);

  Ref centred = graph.pointwise(CUDNN_POINTWISE_SUB, graph.matmul(gradient, values), sums);
  Ref dscores =
      graph.pointwise(CUDNN_POINTWISE_MUL, graph.pointwise(CUDNN_POINTWISE_MUL, centred, probabilities), factor);
  into_keys(graph.transposed(dscores), queries, dk);
  graph.matmul(dscores, graph.transposed(keys), operands.queries(dq));
}

}  // namespace

AttentionGraph graph_of(const AttentionForward& call) { return shape_of_call(call); }

AttentionGraph graph_of(const AttentionBackward& call) {
  AttentionGraph graph = shape_of_call(call);
  graph.backward = true;
  graph[dout] = operand(call.dout);
  graph[dq] = operand(call.dq);
  graph[dk] = operand(call.dk);
  graph[dv] = operand(call.dv);
  return graph;
}

CudnnGraph build(const Cudnn& api, const AttentionGraph& graph) {
  CudnnGraph made(api);
  const Operands operands(made, graph);
  if (graph.backward)
    build_backward(made, operands, graph);
  else
    build_forward(made, operands, graph);
  return made;
}

const CudnnEngine* engine_for(const AttentionGraph& graph, const FusedDevice& device) {
  // Tiles of 128 × 128, two stages: the settings by which NVIDIA's own front end asks for the deterministic backward.
  // Version 9.23 took the one number of the kernel's configuration apart; the last two knobs are newer than some headers.
  static const CudnnEngine joint{5, {{CUDNN_KNOB_TYPE_KERNEL_CFG, 31}, {CUDNN_KNOB_TYPE_STAGES, 2}}};
  static const CudnnEngine split{5,
                                 {{static_cast<cudnnBackendKnobType_t>(40), 3},  // TILE_M
                                  {static_cast<cudnnBackendKnobType_t>(41), 2},  // TILE_N
                                  {CUDNN_KNOB_TYPE_KERNEL_CFG, 2},
                                  {CUDNN_KNOB_TYPE_STREAM_K, 0},
                                  {CUDNN_KNOB_TYPE_TILE_CGA_M, 0},
                                  {CUDNN_KNOB_TYPE_STAGES, 2}}};
  if (!graph.backward || !needs_ordered_engine(device)) return nullptr;
  return device.version < 92300 ? &joint : &split;
}

}  // namespace weft::cuda
