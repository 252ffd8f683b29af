// Fused attention by cuDNN: which calls, and the plans that are kept for them.
#pragma once
#include <map>
#include <optional>
#include <string>

#include "core/cuda/cudnn/attention_graph.hpp"

namespace weft::cuda {

struct CudnnOptions {
  /// As in CublasLtOptions.
  std::vector<std::string_view> names = {"libcudnn.so.9"};
  std::vector<std::filesystem::path> folders = library_folders();
  /// Of the GPU that is current: 90 is 9.0.
  int capability = 0;
  /// The largest part of a backward pass that is computed at a time, see backward_piece.
  std::int64_t most_score_bytes = cuda::most_score_bytes;
};

/// For the device that is current when it is made.
class CudnnAttention final : public FusedAttention {
 public:
  /// Throws Error if the library is missing or too old, or cannot use the device.
  explicit CudnnAttention(const CudnnOptions& options);

  bool forward(ExecContext& exec, const AttentionForward& call) override;
  bool backward(ExecContext& exec, const AttentionBackward& call) override;
  std::string description() const override;

 private:
  const CudnnPlan& plan(const AttentionGraph& graph);
  void run(ExecContext& exec, const CudnnPlan& plan, const AttentionGraph& graph, AttentionPointers pointers,
           float scale);

  Cudnn api_;
  std::optional<Library> compiler_;  // cuDNN opens it too, but does not look in all the folders
  Handle<cudnnHandle_t, decltype(&cudnnDestroy)> handle_;
  FusedDevice device_;
  std::int64_t most_bytes_;
  void* stream_ = nullptr;  // the handle's
  std::map<AttentionGraph, CudnnPlan> plans_;
};

}  // namespace weft::cuda
