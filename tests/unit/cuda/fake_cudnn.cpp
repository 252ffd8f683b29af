// Stands in for cuDNN where there is no GPU: the functions that Weft calls. Graphs are computed over host memory;
// attributes, their types and their order are checked as the real library does.
#include "tests/unit/cuda/fake_cudnn.hpp"

#include <algorithm>
#include <functional>
#include <set>

#include "tests/unit/cuda/fake_cudnn_graph.hpp"

namespace {

using weft::test::FakeCudnn;
using namespace weft::test::fake;

FakeCudnn state;

Ref& of(cudnnBackendDescriptor_t descriptor) { return *static_cast<Ref*>(descriptor); }

std::size_t bytes_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: return 4;
  }
}

/// The attributes of each kind of descriptor that Weft sets, with their types; all are needed but the last few.
struct Kind {
  std::map<int, cudnnBackendAttributeType_t> needed, optional;
};

const Kind& kind_of(cudnnBackendDescriptorType_t type) {
  constexpr auto descriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;
  static const std::map<int, Kind> kinds = {
      {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
       {{{CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64},
         {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE},
         {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64},
         {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64},
         {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64}},
        {{CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN}, {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN}}}},
      {CUDNN_BACKEND_MATMUL_DESCRIPTOR, {{{CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE}}, {}}},
      {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
       {{{CUDNN_ATTR_OPERATION_MATMUL_ADESC, descriptor},
         {CUDNN_ATTR_OPERATION_MATMUL_BDESC, descriptor},
         {CUDNN_ATTR_OPERATION_MATMUL_CDESC, descriptor},
         {CUDNN_ATTR_OPERATION_MATMUL_DESC, descriptor}},
        {}}},
      {CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
       {{{CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE},
         {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE}},
        {{CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64}}}},
      {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
       {{{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, descriptor},
         {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, descriptor},
         {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, descriptor}},
        {{CUDNN_ATTR_OPERATION_POINTWISE_BDESC, descriptor}, {CUDNN_ATTR_OPERATION_POINTWISE_TDESC, descriptor}}}},
      {CUDNN_BACKEND_REDUCTION_DESCRIPTOR,
       {{{CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE},
         {CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE}},
        {}}},
      {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
       {{{CUDNN_ATTR_OPERATION_REDUCTION_XDESC, descriptor},
         {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, descriptor},
         {CUDNN_ATTR_OPERATION_REDUCTION_DESC, descriptor}},
        {}}},
      {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
       {{{CUDNN_ATTR_OPERATION_RESHAPE_XDESC, descriptor}, {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, descriptor}}, {}}},
      {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
       {{{800 /* handle */, CUDNN_TYPE_HANDLE}, {CUDNN_ATTR_OPERATIONGRAPH_OPS, descriptor}}, {}}},
      {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
       {{{CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, descriptor}, {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE}}, {}}},
      {CUDNN_BACKEND_ENGINE_DESCRIPTOR,
       {{{CUDNN_ATTR_ENGINE_OPERATION_GRAPH, descriptor}, {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64}}, {}}},
      {CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
       {{{CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE},
         {CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64}},
        {}}},
      {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
       {{{CUDNN_ATTR_ENGINECFG_ENGINE, descriptor}}, {{CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, descriptor}}}},
      {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
       {{{400 /* handle */, CUDNN_TYPE_HANDLE}, {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, descriptor}}, {}}},
      {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
       {{{CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64},
         {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR},
         {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR}},
        {}}}};
  return kinds.at(type);
}

const std::vector<Ref>& operations_of(const Node& graph) {
  return graph.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).nodes;
}

const Node& graph_of_plan(const Node& plan) {
  return plan.node(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
      .node(CUDNN_ATTR_ENGINECFG_ENGINE)
      .node(CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
}

/// All tensors that its operations name.
std::vector<const Node*> tensors_of(const Node& graph) {
  std::vector<const Node*> tensors;
  for (const Ref& op : operations_of(graph))
    for (const auto& [name, attribute] : op->attributes)
      for (const Ref& node : attribute.nodes)
        if (node->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR) tensors.push_back(node.get());
  return tensors;
}

bool any_operation(const Node& graph, const std::function<bool(const Node&)>& is) {
  for (const Ref& op : operations_of(graph))
    if (is(*op)) return true;
  return false;
}

/// The pattern that the real library knows: forward graphs take the logarithm of the sums, backward ones transpose.
bool known(const Node& graph) {
  return any_operation(graph, [](const Node& op) {
    return op.type == CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR ||
           (op.type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR &&
            op.node(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
                    .get<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE) == CUDNN_POINTWISE_LOG);
  });
}

std::int64_t workspace_of(const Node& plan) {
  std::int64_t scores = 0;
  for (const Ref& op : operations_of(graph_of_plan(plan)))
    if (op->type == CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
      scores = std::max(scores, count_of(dims_of(op->node(CUDNN_ATTR_OPERATION_RESHAPE_YDESC))));
  return 256 + (state.stores_scores ? 2 * scores : 0);
}

Ref engine(const Ref& graph, std::int64_t index) {
  auto made = std::make_shared<Node>(Node{CUDNN_BACKEND_ENGINE_DESCRIPTOR, true, {}});
  made->attributes[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, {}, {graph}};
  Attribute number{CUDNN_TYPE_INT64, std::vector<char>(8), {}};
  std::memcpy(number.bytes.data(), &index, 8);
  made->attributes[CUDNN_ATTR_ENGINE_GLOBAL_INDEX] = number;
  return made;
}

template <class T>
cudnnStatus_t give(T value, std::int64_t room, std::int64_t* count, void* values) {
  *count = 1;
  if (room > 0) std::memcpy(values, &value, sizeof value);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_plan(const Node& plan) {
  const Node& configuration = plan.node(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  ++state.plans;
  state.last_engine = configuration.node(CUDNN_ATTR_ENGINECFG_ENGINE).get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  state.last_knobs = configuration.has(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)
                         ? static_cast<int>(configuration.attributes.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).nodes.size())
                         : 0;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_graph(const Node& graph) {
  std::map<std::int64_t, const Node*> seen;
  for (const Node* tensor : tensors_of(graph)) {
    const auto [at, fresh] = seen.emplace(tensor->get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID), tensor);
    if (!fresh && at->second != tensor) return CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES;
  }
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

FakeCudnn* fake_cudnn() { return &state; }

std::size_t cudnnGetVersion() { return state.version; }
std::size_t cudnnGetCudartVersion() { return 99000; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS";
}
void cudnnGetLastErrorString(char* message, std::size_t size) {
  if (size > 0) std::strncpy(message, "as the test wants it", size);
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  if (state.create_status) return static_cast<cudnnStatus_t>(state.create_status);
  *handle = reinterpret_cast<cudnnHandle_t>(&state);
  ++state.live;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t) {
  --state.live;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t stream) {
  state.last_stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* made) {
  *made = new Ref(std::make_shared<Node>(Node{type, false, {}}));
  ++state.live;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete static_cast<Ref*>(descriptor);
  --state.live;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count, const void* values) {
  Node& node = *of(descriptor);
  const Kind& kind = kind_of(node.type);
  const auto needed = kind.needed.find(name), optional = kind.optional.find(name);
  if (node.finalized || (needed == kind.needed.end() && optional == kind.optional.end())) return CUDNN_STATUS_BAD_PARAM;
  if ((needed != kind.needed.end() ? needed : optional)->second != type) return CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE;
  Attribute attribute{type, {}, {}};
  const auto* bytes = static_cast<const char*>(values);
  attribute.bytes.assign(bytes, bytes + static_cast<std::size_t>(count) * bytes_of(type));
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    for (std::int64_t i = 0; i < count; ++i) {
      const Ref& given = of(static_cast<const cudnnBackendDescriptor_t*>(values)[i]);
      if (!given->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
      attribute.nodes.push_back(given);
    }
  node.attributes[name] = std::move(attribute);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, std::int64_t room, std::int64_t* count,
                                       void* values) {
  const Node& node = *of(descriptor);
  if (!node.finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  switch (static_cast<int>(name)) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS: {
      const Ref& graph = node.attributes.at(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH).nodes[0];
      const std::int64_t all = known(*graph) ? state.proposals : 0;
      // One more is counted than can be had.
      *count = room == 0 ? all + 1 : std::min(room, all);
      for (std::int64_t i = 0; i < std::min(room, all); ++i) {
        Node& into = *of(static_cast<cudnnBackendDescriptor_t*>(values)[i]);
        into.attributes[CUDNN_ATTR_ENGINECFG_ENGINE] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, {}, {engine(graph, i)}};
        into.finalized = true;
      }
      return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_ATTR_ENGINECFG_ENGINE:
      *of(*static_cast<cudnnBackendDescriptor_t*>(values)) = node.node(CUDNN_ATTR_ENGINECFG_ENGINE);
      *count = 1;
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE: {
      const bool unordered = node.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX) < state.nondeterministic;
      return give(unordered ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC : CUDNN_NUMERICAL_NOTE_TENSOR_CORE, room, count,
                  values);
    }
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: return give(workspace_of(node), room, count, values);
    default: return CUDNN_STATUS_BAD_PARAM;
  }
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  Node& node = *of(descriptor);
  for (const auto& [name, type] : kind_of(node.type).needed)
    if (!node.has(name)) return CUDNN_STATUS_BAD_PARAM;
  if (node.type == state.failing_type && state.failing_times-- > 0)
    return static_cast<cudnnStatus_t>(state.failing_status);
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
  if (node.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) status = finalize_graph(node);
  if (node.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) status = finalize_plan(node);
  node.finalized = status == CUDNN_STATUS_SUCCESS;
  return status;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t plan_descriptor,
                                  cudnnBackendDescriptor_t arguments) {
  const Node &plan = *of(plan_descriptor), &given = *of(arguments);
  if (!plan.finalized || !given.finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  if (state.execute_status) return static_cast<cudnnStatus_t>(state.execute_status);
  const auto ids = given.list<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = given.list<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  if (ids.size() != pointers.size()) return CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT;
  std::map<std::int64_t, void*> memory;
  for (std::size_t i = 0; i < ids.size(); ++i) memory[ids[i]] = pointers[i];
  const Node& graph = graph_of_plan(plan);
  std::set<std::int64_t> wanted;
  for (const Node* tensor : tensors_of(graph)) {
    if (tensor->has(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) continue;
    const auto id = tensor->get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    if (!memory.contains(id)) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
    if (!tensor->has(CUDNN_ATTR_TENSOR_IS_BY_VALUE) && reinterpret_cast<std::uintptr_t>(memory[id]) % 16 != 0)
      return CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER;
    wanted.insert(id);
  }
  if (wanted.size() != memory.size()) return CUDNN_STATUS_BAD_PARAM;
  auto* workspace = given.get<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  if (!workspace) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  const std::int64_t bytes = workspace_of(plan);
  state.largest_workspace = std::max(state.largest_workspace, bytes);
  Machine machine(memory);
  for (const Ref& op : operations_of(graph)) {
    std::memset(workspace, 0xff, static_cast<std::size_t>(bytes));  // it may hold anything at any time
    machine.run(*op);
  }
  ++state.executions;
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
