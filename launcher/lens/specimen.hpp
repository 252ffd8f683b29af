// A mixer alone on one rank of a mesh, as training would run it there.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launcher/session.hpp"
#include "models/config.hpp"
#include "models/mixers/mixer.hpp"
#include "parallel/grad_buckets.hpp"
#include "parallel/layers/tensor_group.hpp"

namespace weft {

/// A batch of sequences, all ranks together.
struct LensShape {
  std::int64_t batch = 1, seq = 1;
};

/// The model that stands for a mixer of this width where the rules of sharding ask for one. Heads are 64 wide where that divides
/// the width.
LmConfig lens_config(const std::string& model, std::int64_t width);

/// Why the mixer does not go over such a mesh in batches of this shape (0: any); empty if it does.
std::string lens_misfit(const LmConfig& config, const MeshSizes& sizes, LensShape shape);

class Specimen {
 public:
  /// Collective over the mesh. Initial values are the same under any mesh. Throws UserError where the mixer cannot be built.
  /// `relay_parts`: see ShardingOptions.
  Specimen(Engine& engine, Mesh& mesh, const LmConfig& config, DType compute, std::uint64_t seed,
           std::int64_t relay_parts = 0);

  /// This rank's rows of a normal [batch, seq, width] tensor that is the same under any mesh: as the residual stream lies.
  Tensor random(LensShape shape, std::string_view name) const;
  /// Records the forward pass of `x`, which the tape then watches: the stream again.
  Tensor forward(Tensor& x, LensShape shape, Tape& tape);
  /// From the gradient of forward()'s result to those of x and the parameters, summed over the ranks.
  void backward(Tape& tape, const Tensor& y, const Tensor& dy);

  Engine& engine() { return engine_; }
  Mesh& mesh() { return mesh_; }
  std::int64_t width() const { return config_.d_model; }
  const ParameterStore& parameters() const { return store_; }

 private:
  OpContext context(LensShape shape, Tape* tape) const;

  Engine& engine_;
  Mesh& mesh_;
  LmConfig config_;
  DType compute_;
  std::uint64_t seed_;
  ShardingOptions sharding_;
  ParameterStore store_;
  std::optional<TensorGroup> group_;
  std::unique_ptr<Mixer> mixer_;
  std::optional<GradBuckets> buckets_;
};

/// Copies a tensor of any float type to the host, as f32.
std::vector<float> on_host(ExecContext& exec, const Tensor& tensor);

}  // namespace weft
