// A short training on any device, and how far two of them are apart.
#pragma once
#include <memory>
#include <vector>

#include "launcher/training_step.hpp"

namespace weft::test {

struct TrainingPlan {
  LmConfig config;  ///< config.max_seq is the sequence length
  std::int64_t batch = 4;
  std::int64_t micro_batch = 3;  ///< the last micro-batch is smaller
  int steps = 10;
  DType compute = DType::f32;
  StepReplay replay = StepReplay::automatic;
};

struct Training {
  std::vector<double> losses, norms;
  std::vector<std::string> names;
  std::vector<std::vector<float>> gradients;  ///< of step 1, by parameter
  std::vector<float> values;                  ///< at the end

  bool operator==(const Training&) const = default;
};

/// AdamW on text of a fixed seed; the same plan trains the same on every device.
Training train(std::unique_ptr<Device> device, const TrainingPlan& plan);

/// Norms of differences over norms of `right`.
struct Apart {
  double loss = 0, grad_norm = 0;  ///< worst step
  double gradient = 0;             ///< worst parameter, over its norm or, below 1e-6 of the global norm, 1e-6 of that
  double all_gradients = 0;        ///< as one vector
  std::string parameter;           ///< that of `gradient`
};
Apart compare(const Training& right, const Training& found);

}  // namespace weft::test
