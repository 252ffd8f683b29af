// The graphs of attention, given to the cuDNN that is installed: it must know them, and compile them for GPUs that are not
// there.
#include <gtest/gtest.h>

#include "core/cuda/cudnn/attention_graph.hpp"

namespace weft::cuda {
namespace {

constexpr std::size_t first_that_takes_descriptions = 90800;

struct GraphCase {
  const char* name;
  int capability;
  bool backward, causal, has_lse;
  std::int64_t length, heads, kv_heads, head_dim;
};

void PrintTo(const GraphCase& wanted, std::ostream* out) { *out << wanted.name; }

AttentionGraph graph_of_case(const GraphCase& wanted) {
  using enum AttentionTensor;
  AttentionGraph graph;
  graph.backward = wanted.backward;
  graph.causal = wanted.causal;
  graph.has_lse = wanted.has_lse;
  graph.batch = 2;
  graph.q_len = graph.k_len = wanted.length;
  graph.heads = wanted.heads;
  graph.kv_heads = wanted.kv_heads;
  graph.head_dim = wanted.head_dim;
  const std::int64_t width = (wanted.heads + 2 * wanted.kv_heads) * wanted.head_dim,
                     out_width = wanted.heads * wanted.head_dim;
  for (const AttentionTensor tensor : {q, k, v, dq, dk, dv})
    graph[tensor] = {wanted.length * width, width, wanted.head_dim};
  for (const AttentionTensor tensor : {out, dout})
    graph[tensor] = {wanted.length * out_width, out_width, wanted.head_dim};
  return graph;
}

class RealCudnn : public testing::TestWithParam<GraphCase> {};

TEST_P(RealCudnn, MakesAPlan) {
  const GraphCase& wanted = GetParam();
  const std::string_view names[] = {WEFT_DEVICELESS_CUDNN};
  const Cudnn api(Library("cuDNN", names, {}));
  if (api.version() < first_that_takes_descriptions)
    GTEST_SKIP() << "cuDNN " << version_text(api.version()) << " needs a GPU to say what it can compute";
  *api.library.function<int*()>("deviceless_capability")() = wanted.capability;
  cudnnHandle_t made = nullptr;
  if (const cudnnStatus_t status = api.create(&made); status == CUDNN_STATUS_BAD_PARAM)
    GTEST_SKIP() << "cuDNN " << version_text(api.version())
                 << " wants GPUs described in another way: " << api.reason(status);
  else
    api.check(status, "cudnnCreate");
  const Handle<cudnnHandle_t, decltype(&cudnnDestroy)> handle(made, api.destroy);

  const AttentionGraph graph = graph_of_case(wanted);
  const CudnnPlan plan =
      make_plan(api, handle.get(), build(api, graph), engine_for(graph, {wanted.capability, api.version()}));
  EXPECT_EQ(plan.refusal, "");
  const std::int64_t scores = 2 * graph.batch * graph.heads * graph.q_len * graph.k_len;
  if (wanted.backward && wanted.capability < 100) {
    EXPECT_GE(plan.workspace, scores) << "the gradient of the scores is not stored";
  } else {
    EXPECT_LT(plan.workspace, scores);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, RealCudnn,
                         testing::Values(GraphCase{"HopperInference", 90, false, false, false, 1024, 12, 12, 64},
                                         GraphCase{"HopperForward", 90, false, true, true, 1000, 8, 2, 128},
                                         GraphCase{"HopperBackward", 90, true, true, true, 1000, 8, 2, 128},
                                         GraphCase{"AmpereBackward", 80, true, true, true, 1024, 12, 12, 64},
                                         GraphCase{"BlackwellBackward", 100, true, true, true, 1024, 12, 12, 64}),
                         [](const testing::TestParamInfo<GraphCase>& point) { return point.param.name; });

}  // namespace
}  // namespace weft::cuda
