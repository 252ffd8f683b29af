#include "core/cuda/cudnn/graph.hpp"

#include <algorithm>

#include "core/base/error.hpp"

namespace weft::cuda {

namespace {

// Later versions call these two names deprecated; the oldest ones that Weft takes need them.
constexpr auto graph_handle = static_cast<cudnnBackendAttributeName_t>(800);
constexpr auto plan_handle = static_cast<cudnnBackendAttributeName_t>(400);

bool unsupported(cudnnStatus_t status) { return CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED; }

bool same_bits_each_time(const CudnnDescriptor& engine) {
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  const std::int64_t count =
      engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, std::span<cudnnBackendNumericalNote_t>(notes));
  return std::find(notes.begin(), notes.begin() + count, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) ==
         notes.begin() + count;
}

/// Fills `made` from a configuration, or says why that cannot be used.
void try_configuration(const Cudnn& api, cudnnHandle_t handle, CudnnDescriptor configuration, CudnnPlan& made) {
  CudnnDescriptor plan(api, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan.set(plan_handle, handle);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
  if (const cudnnStatus_t status = plan.finalize(); status != CUDNN_STATUS_SUCCESS) {
    made.refusal = api.reason(status);
    return;
  }
  plan.get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, std::span<std::int64_t>(&made.workspace, 1));
  made.configuration = std::move(configuration);
  made.plan = std::move(plan);
  made.refusal.clear();
}

void try_engine(const Cudnn& api, cudnnHandle_t handle, const CudnnEngine& wanted, CudnnPlan& made) {
  CudnnDescriptor engine(api, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, made.graph);
  engine.set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, wanted.index);
  if (const cudnnStatus_t status = engine.finalize(); status != CUDNN_STATUS_SUCCESS) {
    made.refusal = api.reason(status);
    return;
  }
  std::vector<CudnnDescriptor> knobs;
  for (const auto& [knob, setting] : wanted.knobs) {
    CudnnDescriptor choice(api, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    choice.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, knob);
    choice.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, setting);
    knobs.push_back(std::move(choice).finished("a setting of an engine"));
  }
  CudnnDescriptor configuration(api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  configuration.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (!knobs.empty()) configuration.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, std::span<const CudnnDescriptor>(knobs));
  if (const cudnnStatus_t status = configuration.finalize(); status != CUDNN_STATUS_SUCCESS) {
    made.refusal = api.reason(status);
    return;
  }
  try_configuration(api, handle, std::move(configuration), made);
}

void try_proposals(const Cudnn& api, cudnnHandle_t handle, CudnnPlan& made) {
  CudnnDescriptor heuristic(api, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, made.graph);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A);
  if (const cudnnStatus_t status = heuristic.finalize(); status != CUDNN_STATUS_SUCCESS) {
    made.refusal = api.reason(status);
    return;
  }
  std::vector<CudnnDescriptor> proposals;
  for (std::int64_t left = heuristic.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, proposals); left > 0; --left)
    proposals.emplace_back(api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  // Fewer may come than were counted.
  const std::int64_t count = heuristic.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, proposals);
  made.refusal = "no engine that gives the same bits each time";
  for (std::int64_t i = 0; i < count && !made.plan.get(); ++i) {
    CudnnDescriptor& proposal = proposals[static_cast<std::size_t>(i)];
    const CudnnDescriptor engine(api, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    proposal.get(CUDNN_ATTR_ENGINECFG_ENGINE, std::span<const CudnnDescriptor>(&engine, 1));
    if (same_bits_each_time(engine)) try_configuration(api, handle, std::move(proposal), made);
  }
}

}  // namespace

CudnnGraph::Ref CudnnGraph::add(std::int64_t id, const Dims4& dims, const Dims4& strides, cudnnDataType_t type,
                                Place place) {
  CudnnDescriptor made(*api_, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type);
  made.set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::span<const std::int64_t>(dims));
  made.set(CUDNN_ATTR_TENSOR_STRIDES, std::span<const std::int64_t>(strides));
  made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t{16});
  if (place == Place::host) made.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
  if (place == Place::nowhere) made.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  tensors_.push_back({std::move(made).finished("a tensor"), dims, strides});
  return tensors_.back();
}

CudnnGraph::Ref CudnnGraph::add_virtual(const Dims4& dims, const Dims4& strides, cudnnDataType_t type) {
  return add(first_virtual_id + static_cast<std::int64_t>(tensors_.size()), dims, strides, type, Place::nowhere);
}

CudnnGraph::Ref CudnnGraph::add_virtual(const Dims4& dims, cudnnDataType_t type) {
  return add_virtual(dims, packed_strides(dims), type);
}

CudnnGraph::Ref CudnnGraph::memory(std::int64_t id, const Dims4& dims, const Dims4& strides, cudnnDataType_t type) {
  return add(id, dims, strides, type, Place::device);
}

CudnnGraph::Ref CudnnGraph::value(std::int64_t id) {
  return add(id, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_FLOAT, Place::host);
}

void CudnnGraph::add_operation(cudnnBackendDescriptorType_t type, std::initializer_list<Port> ports) {
  CudnnDescriptor made(*api_, type);
  for (const Port& port : ports) made.set(port.name, port.descriptor);
  operations_.push_back(std::move(made).finished("an operation"));
}

void CudnnGraph::matmul(Ref a, Ref b, Ref into) {
  CudnnDescriptor kind(*api_, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
  add_operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.descriptor},
                 {CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.descriptor},
                 {CUDNN_ATTR_OPERATION_MATMUL_CDESC, into.descriptor},
                 {CUDNN_ATTR_OPERATION_MATMUL_DESC, std::move(kind).finished("a product")}});
}

CudnnGraph::Ref CudnnGraph::matmul(Ref a, Ref b, cudnnDataType_t type) {
  Ref into = add_virtual({a.dims[0], a.dims[1], a.dims[2], b.dims[3]}, type);
  matmul(a, b, into);
  return into;
}

CudnnDescriptor CudnnGraph::pointwise_kind(cudnnPointwiseMode_t mode, cudnnDataType_t compute) {
  CudnnDescriptor kind(*api_, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  kind.set(CUDNN_ATTR_POINTWISE_MODE, mode);
  kind.set(CUDNN_ATTR_POINTWISE_MATH_PREC, compute);
  return kind;
}

CudnnGraph::Ref CudnnGraph::pointwise(cudnnPointwiseMode_t mode, Ref x) {
  Ref into = add_virtual(x.dims);
  add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_kind(mode).finished("a function")},
                 {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, into.descriptor}});
  return into;
}

void CudnnGraph::pointwise(cudnnPointwiseMode_t mode, Ref x, Ref y, Ref into) {
  add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_kind(mode).finished("a function")},
                 {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, y.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, into.descriptor}});
}

CudnnGraph::Ref CudnnGraph::pointwise(cudnnPointwiseMode_t mode, Ref x, Ref y, cudnnDataType_t type) {
  Ref into = add_virtual(x.dims, type);
  pointwise(mode, x, y, into);
  return into;
}

CudnnGraph::Ref CudnnGraph::select(Ref condition, Ref x, Ref otherwise) {
  Ref into = add_virtual(x.dims);
  add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                  pointwise_kind(CUDNN_POINTWISE_BINARY_SELECT).finished("a choice")},
                 {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, otherwise.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_TDESC, condition.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, into.descriptor}});
  return into;
}

CudnnGraph::Ref CudnnGraph::index(Ref like, std::int64_t dim) {
  Ref into = add_virtual(like.dims, CUDNN_DATA_INT32);
  CudnnDescriptor kind = pointwise_kind(CUDNN_POINTWISE_GEN_INDEX);
  kind.set(CUDNN_ATTR_POINTWISE_AXIS, dim);
  add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, std::move(kind).finished("an index")},
                 {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, like.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, into.descriptor}});
  return into;
}

CudnnGraph::Ref CudnnGraph::lower_triangle(Ref like) {
  Ref row = index(like, 2);
  Ref col = index(like, 3);
  Ref into = add_virtual(like.dims, CUDNN_DATA_BOOLEAN);
  add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                  pointwise_kind(CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN).finished("a comparison")},
                 {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, row.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, col.descriptor},
                 {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, into.descriptor}});
  return into;
}

void CudnnGraph::reduce(cudnnReduceTensorOp_t op, Ref x, Ref into) {
  CudnnDescriptor kind(*api_, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  kind.set(CUDNN_ATTR_REDUCTION_OPERATOR, op);
  kind.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  add_operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
                {{CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.descriptor},
                 {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, into.descriptor},
                 {CUDNN_ATTR_OPERATION_REDUCTION_DESC, std::move(kind).finished("a reduction")}});
}

CudnnGraph::Ref CudnnGraph::reduce_rows(cudnnReduceTensorOp_t op, Ref x) {
  Ref into = add_virtual({x.dims[0], x.dims[1], x.dims[2], 1});
  reduce(op, x, into);
  return into;
}

void CudnnGraph::sum_heads(Ref x, Ref into) { reduce(CUDNN_REDUCE_TENSOR_ADD, x, into); }

CudnnGraph::Ref CudnnGraph::transposed(Ref x) {
  Ref into = add_virtual(swapped_rows_and_columns(x.dims), swapped_rows_and_columns(x.strides), CUDNN_DATA_BFLOAT16);
  add_operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.descriptor},
                                                             {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, into.descriptor}});
  return into;
}

CudnnDescriptor CudnnGraph::finish(cudnnHandle_t handle) const {
  CudnnDescriptor made(*api_, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  made.set(graph_handle, handle);
  made.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, std::span<const CudnnDescriptor>(operations_));
  return made;
}

CudnnPlan make_plan(const Cudnn& api, cudnnHandle_t handle, const CudnnGraph& graph, const CudnnEngine* engine) {
  CudnnPlan made;
  made.graph = graph.finish(handle);
  if (const cudnnStatus_t status = made.graph.finalize(); status != CUDNN_STATUS_SUCCESS) {
    if (!unsupported(status)) api.check(status, "cudnnBackendFinalize of a graph");
    made.refusal = api.reason(status);
    return made;
  }
  if (engine)
    try_engine(api, handle, *engine, made);
  else
    try_proposals(api, handle, made);
  return made;
}

}  // namespace weft::cuda
