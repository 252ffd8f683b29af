#include "core/cuda/cudnn/attention.hpp"

#include <limits>

#include "core/base/log.hpp"
#include "core/cuda/scratch.hpp"

namespace weft::cuda {

namespace {

using enum AttentionTensor;

constexpr std::size_t at(AttentionTensor tensor) { return static_cast<std::size_t>(tensor); }

std::optional<Library> open_compiler(const Cudnn& api, const std::vector<std::filesystem::path>& folders) {
  const std::string name = fmt::format("libnvrtc.so.{}", api.runtime_version() / 1000);
  const std::string_view names[] = {name};
  try {
    return Library("NVRTC", names, folders);
  } catch (const Error&) {
    return {};  // kernels that come compiled need none
  }
}

/// Sequences and key-value heads [first, first + count).
struct Part {
  std::int64_t sequence, sequences, kv_head, kv_heads;
};

template <class AnyView>
AnyView part_of(AnyView view, std::int64_t sequence, std::int64_t sequences, std::int64_t head, std::int64_t heads) {
  AnyView part = view.slice(sequence, sequence + sequences);
  const auto offset = head * view.strides[2] * static_cast<std::int64_t>(size_of(view.dtype));
  using Byte = std::conditional_t<std::is_same_v<AnyView, View>, const char, char>;
  part.data = static_cast<Byte*>(part.data) + offset;
  part.shape[2] = heads;
  return part;
}

AttentionBackward part_of(const AttentionBackward& call, const Part& part) {
  const auto [sequence, sequences, kv_head, kv_heads] = part;
  const std::int64_t heads = call.q.shape[2], length = call.q.shape[1], group = heads / call.k.shape[2];
  const auto of_queries = [&](const auto& view) {
    return part_of(view, sequence, sequences, kv_head * group, kv_heads * group);
  };
  const auto of_keys = [&](const auto& view) { return part_of(view, sequence, sequences, kv_head, kv_heads); };
  const auto* lse = static_cast<const float*>(call.lse.data) + (sequence * heads + kv_head * group) * length;
  return {of_queries(call.q),
          of_keys(call.k),
          of_keys(call.v),
          of_queries(call.out),
          View(lse, {sequences, kv_heads * group, length}, DType::f32),
          of_queries(call.dout),
          call.spec,
          of_queries(call.dq),
          of_keys(call.dk),
          of_keys(call.dv)};
}

/// body(part) for the pieces of a call; stops and returns false when one is false.
template <class Body>
bool for_parts(const AttentionCall& call, const AttentionPiece& piece, Body&& body) {
  for (std::int64_t sequence = 0; sequence < call.batch; sequence += piece.batch)
    for (std::int64_t head = 0; head < call.kv_heads; head += piece.kv_heads)
      if (!body(Part{sequence, std::min(piece.batch, call.batch - sequence), head,
                     std::min(piece.kv_heads, call.kv_heads - head)}))
        return false;
  return true;
}

template <class Call>
AttentionPointers pointers_of(const Call& call) {
  AttentionPointers pointers{};
  pointers[at(q)] = call.q.data;
  pointers[at(k)] = call.k.data;
  pointers[at(v)] = call.v.data;
  pointers[at(out)] = call.out.data;
  pointers[at(lse)] = call.lse.data;
  return pointers;
}

}  // namespace

CudnnAttention::CudnnAttention(const CudnnOptions& options)
    : api_(Library("cuDNN", options.names, options.folders)), most_bytes_(options.most_score_bytes) {
  device_ = {options.capability, api_.version()};
  if (device_.version < oldest_cudnn)
    fail("{} is cuDNN {}, attention needs {}", api_.library.path(), version_text(device_.version),
         version_text(oldest_cudnn));
  compiler_ = open_compiler(api_, options.folders);
  cudnnHandle_t handle = nullptr;
  api_.check(api_.create(&handle), "cudnnCreate");
  handle_ = decltype(handle_)(handle, api_.destroy);
}

std::string CudnnAttention::description() const {
  return fmt::format("cuDNN {} ({})", version_text(device_.version), api_.library.path());
}

const CudnnPlan& CudnnAttention::plan(const AttentionGraph& graph) {
  if (const auto found = plans_.find(graph); found != plans_.end()) return found->second;
  CudnnPlan made = make_plan(api_, handle_.get(), build(api_, graph), engine_for(graph, device_));
  // That the gradient of the scores has a place shows that nothing is added to dq by several blocks at a time.
  if (graph.backward && !needs_ordered_engine(device_) && made.refusal.empty() &&
      made.workspace < 2 * graph.batch * graph.heads * graph.q_len * graph.k_len)
    made.refusal = "its sums have no fixed order";
  if (!made.refusal.empty())
    log_warning(
        "cuDNN {} does not take attention's {} of {} sequences, {} queries, {} keys, {}/{} heads of {}; Weft's own "
        "slower kernel does: {}",
        version_text(device_.version), graph.backward ? "backward" : "forward", graph.batch, graph.q_len, graph.k_len,
        graph.heads, graph.kv_heads, graph.head_dim, made.refusal);
  return plans_.emplace(graph, std::move(made)).first->second;
}

bool CudnnAttention::forward(ExecContext& exec, const AttentionForward& call) {
  if (!fuses_forward(describe(call), device_)) return false;
  const AttentionGraph graph = graph_of(call);
  const CudnnPlan& way = plan(graph);
  if (!way.refusal.empty()) return false;
  run(exec, way, graph, pointers_of(call), call.spec.scale);
  return true;
}

bool CudnnAttention::backward(ExecContext& exec, const AttentionBackward& call) {
  const AttentionCall described = describe(call);
  if (!fuses_backward(described, device_, most_bytes_)) return false;
  const AttentionPiece piece = backward_piece(described, most_bytes_);
  if (!for_parts(described, piece,
                 [&](const Part& part) { return plan(graph_of(part_of(call, part))).refusal.empty(); }))
    return false;
  return for_parts(described, piece, [&](const Part& part) {
    const AttentionBackward some = part_of(call, part);
    const AttentionGraph graph = graph_of(some);
    AttentionPointers pointers = pointers_of(some);
    pointers[at(dout)] = some.dout.data;
    pointers[at(dq)] = some.dq.data;
    pointers[at(dk)] = some.dk.data;
    pointers[at(dv)] = some.dv.data;
    run(exec, plan(graph), graph, pointers, call.spec.scale);
    return true;
  });
}

void CudnnAttention::run(ExecContext& exec, const CudnnPlan& plan, const AttentionGraph& graph,
                         AttentionPointers pointers, float factor) {
  ScratchParts parts;
  const std::size_t sums_at =
      parts.add(graph.backward ? static_cast<std::size_t>(graph.batch * graph.heads * graph.q_len) * sizeof(float) : 0);
  const std::size_t workspace_at = parts.add(static_cast<std::size_t>(plan.workspace));
  auto* scratch = static_cast<std::byte*>(exec.scratch(std::max<std::size_t>(parts.bytes(), 1)));
  constexpr float hidden = -std::numeric_limits<float>::infinity(), unchanged = 1;
  pointers[at(scale)] = &factor;
  if (graph.causal) pointers[at(minus_infinity)] = &hidden;
  if (graph.backward) {
    pointers[at(row_sums)] = scratch + sums_at;
    pointers[at(one)] = &unchanged;
  }

  std::array<std::int64_t, attention_tensors> ids{};
  std::size_t count = 0;
  for (std::size_t i = 0; i < attention_tensors; ++i) {
    if (!pointers[i]) continue;
    ids[count] = static_cast<std::int64_t>(i);
    pointers[count++] = pointers[i];
  }
  // cuDNN's counterpart of an argument list: a small host object, new for each call.
  CudnnDescriptor arguments(api_, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  const void* workspace = scratch + workspace_at;
  arguments.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::span<const std::int64_t>(ids.data(), count));
  arguments.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, std::span<const void* const>(pointers.data(), count));
  arguments.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace);
  arguments = std::move(arguments).finished("a call's arguments");

  if (stream_ != exec.stream.handle) {
    api_.check(api_.set_stream(handle_.get(), static_cast<cudaStream_t>(exec.stream.handle)), "cudnnSetStream");
    stream_ = exec.stream.handle;
  }
  api_.check(api_.execute(handle_.get(), plan.plan.get(), arguments.get()), "cudnnBackendExecute");
}

std::unique_ptr<FusedAttention> make_cudnn_attention(int capability, std::span<const std::filesystem::path> folders) {
  CudnnOptions options;
  options.folders.insert(options.folders.end(), folders.begin(), folders.end());
  options.capability = capability;
  return std::make_unique<CudnnAttention>(options);
}

}  // namespace weft::cuda
