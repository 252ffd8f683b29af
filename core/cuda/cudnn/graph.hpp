// Graphs of tensors and operations, and the plans that cuDNN makes of them.
#pragma once
#include <array>
#include <deque>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/cudnn/api.hpp"

namespace weft::cuda {

/// Sizes or strides of [batch, head, row, column].
using Dims4 = std::array<std::int64_t, 4>;

constexpr Dims4 packed_strides(const Dims4& dims) {
  return {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1};
}
constexpr Dims4 swapped_rows_and_columns(const Dims4& dims) { return {dims[0], dims[1], dims[3], dims[2]}; }

/// A graph while it is built. Operations are added in the order in which they are called; each returns the tensor that
/// it writes, in f32 unless said otherwise, which exists within the graph alone unless `into` is given.
class CudnnGraph {
 public:
  explicit CudnnGraph(const Cudnn& api) : api_(&api) {}

  struct Node {
    CudnnDescriptor descriptor;
    Dims4 dims, strides;
  };
  using Ref = const Node&;

  /// A tensor in device memory at the address that is given for `id` (below first_virtual_id), aligned to 16 bytes.
  Ref memory(std::int64_t id, const Dims4& dims, const Dims4& strides, cudnnDataType_t type);
  /// An f32 number in host memory.
  Ref value(std::int64_t id);

  /// a[…, m, k]·b[…, k, n]; b may have fewer heads, which then serve several of a's each.
  Ref matmul(Ref a, Ref b, cudnnDataType_t type = CUDNN_DATA_FLOAT);
  void matmul(Ref a, Ref b, Ref into);
  /// op(x) and op(x, y); y's sizes of 1 are repeated as needed.
  Ref pointwise(cudnnPointwiseMode_t mode, Ref x);
  Ref pointwise(cudnnPointwiseMode_t mode, Ref x, Ref y, cudnnDataType_t type = CUDNN_DATA_FLOAT);
  void pointwise(cudnnPointwiseMode_t mode, Ref x, Ref y, Ref into);
  /// x where the condition is true.
  Ref select(Ref condition, Ref x, Ref otherwise);
  /// True where a row's index is at least the column's.
  Ref lower_triangle(Ref like);
  /// Over columns.
  Ref reduce_rows(cudnnReduceTensorOp_t op, Ref x);
  /// Over groups of neighbouring heads.
  void sum_heads(Ref x, Ref into);
  /// The same elements with rows and columns exchanged, in bf16.
  Ref transposed(Ref x);

  /// The operation graph. The tensors and operations live on in it.
  CudnnDescriptor finish(cudnnHandle_t handle) const;

  static constexpr std::int64_t first_virtual_id = 100;

 private:
  enum class Place : std::uint8_t { device, host, nowhere };
  struct Port {
    cudnnBackendAttributeName_t name;
    const CudnnDescriptor& descriptor;
  };
  Ref add(std::int64_t id, const Dims4& dims, const Dims4& strides, cudnnDataType_t type, Place place);
  Ref add_virtual(const Dims4& dims, const Dims4& strides, cudnnDataType_t type);
  Ref add_virtual(const Dims4& dims, cudnnDataType_t type = CUDNN_DATA_FLOAT);
  void add_operation(cudnnBackendDescriptorType_t type, std::initializer_list<Port> ports);
  CudnnDescriptor pointwise_kind(cudnnPointwiseMode_t mode, cudnnDataType_t compute = CUDNN_DATA_FLOAT);
  Ref index(Ref like, std::int64_t dim);
  void reduce(cudnnReduceTensorOp_t op, Ref x, Ref into);

  const Cudnn* api_;
  std::deque<Node> tensors_;  // their addresses stay
  std::vector<CudnnDescriptor> operations_;
};

/// An engine with its settings, instead of the one that cuDNN's heuristics propose.
struct CudnnEngine {
  std::int64_t index;
  std::vector<std::pair<cudnnBackendKnobType_t, std::int64_t>> knobs;
};

/// Something to execute, or the reason why no engine can.
struct CudnnPlan {
  CudnnDescriptor graph, configuration, plan;
  std::int64_t workspace = 0;  ///< bytes
  std::string refusal;         ///< empty if there is a plan
};

/// A plan by `engine`, or, if it is null, by the first of cuDNN's proposals that gives the same bits each time and can be
/// used. Throws Error where something else than missing support stands in the way.
CudnnPlan make_plan(const Cudnn& api, cudnnHandle_t handle, const CudnnGraph& graph, const CudnnEngine* engine);

}  // namespace weft::cuda
