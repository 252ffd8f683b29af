// Short trainings on any mesh, and the three-part criterion that holds two of them equal (docs/numerics.md).
#pragma once
#include <string>
#include <vector>

#include "launcher/memory_prediction.hpp"

namespace weft::test {

inline constexpr std::int64_t batch = 24, seq = 23;
inline constexpr int steps = 30;

/// boom: GPT-2 with the Boom layer for its feed-forward.
enum class Style : std::uint8_t { gpt2, llama, boom };

/// Sizes that few numbers of ranks divide.
LmConfig config(Style style);

/// Stable: differences of rounding do not grow.
double learning_rate(Style style);

struct Layout {
  std::int64_t micro_batch = batch;
  std::size_t bucket_bytes = 4096;
  DType compute = DType::f32;
  Style style = Style::gpt2;
  MeshSizes mesh = {};
  ShardingOptions sharding = {};
  ZeroStage zero = ZeroStage::none;
  Recompute recompute = Recompute::none;
  Wire wire = Wire::native;
  std::string mixer = "attention";
};

/// The style's with the layout's mixer; a recurrence has a width that few ranks divide.
LmConfig config(const Layout& layout);

std::string name_of(const Layout& layout);

/// A model with what trains it.
class TrainingRun {
 public:
  TrainingRun(Communicator& ranks, const Layout& layout);
  StepResult step(int number);
  void settle() { step_->settle(); }
  /// `sequences` a rank at a time, of this run's batches.
  void validate(std::int64_t sequences);
  ParameterStore& parameters() { return built_->store; }
  Optimizer& optimizer() { return *optimizer_; }
  ExecContext& exec() { return engine_.exec(); }
  const LanguageModel& model() const { return *built_->model; }
  /// What this training takes, by the prediction.
  MemoryPlan plan();

 private:
  Engine engine_;
  Mesh mesh_;
  Layout layout_;
  StepOptions options_;
  std::unique_ptr<BuiltModel> built_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<TrainingStep> step_;
};

struct Training {
  std::vector<double> losses, norms;
  bool holders_agree = true;  ///< to the bit: initial values and gradients of step 1, on all ranks that hold them
  std::vector<std::vector<float>> gradients;  ///< of step 1, whole, by parameter
  std::vector<std::vector<float>> initial;    ///< values before it, whole
  std::vector<std::vector<float>> last;       ///< values at the end, whole
  std::vector<float> values;                  ///< this rank's at the end
};

Training train(Communicator& ranks, const Layout& layout);

/// Worst disagreement of each kind, as a multiple of what is allowed: at most 1 means equal.
struct Difference {
  double gradient = 0, loss = 0, grad_norm = 0;
  bool equal() const { return gradient <= 1 && loss <= 1 && grad_norm <= 1; }
};

Difference compare(const Training& a, const Training& b);

/// Every mesh of this many ranks that a model's heads fit, in both ways of sequence-parallel attention, with everything else
/// changing from one to the next.
std::vector<Layout> sweep(int ranks);

}  // namespace weft::test
