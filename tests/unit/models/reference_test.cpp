// Against PyTorch: tests/reference/make_reference.py wrote the weights, inputs and results (float64, stored as f32).
#include <gtest/gtest.h>

#include <cmath>

#include "core/io/safetensors.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft {
namespace {

double norm(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(sum);
}

struct Reference {
  std::string name;
  LmConfig config;
};

void PrintTo(const Reference& reference, std::ostream* out) { *out << reference.name; }

class ReferenceTest : public ::testing::TestWithParam<Reference> {
 protected:
  SafetensorsReader file{std::filesystem::path(WEFT_REFERENCE_DATA) / (GetParam().name + ".safetensors")};

  std::span<const float> floats(const std::string& name) {
    const View view = file.view(name);
    return {view.as<float>(), static_cast<std::size_t>(view.numel())};
  }
  Tensor ints(TinyModel& tiny, const std::string& name) {
    const View view = file.view(name);
    const auto* data = view.as<std::int32_t>();
    return tiny.ints({data, data + view.numel()}, view.shape);
  }
  void load(TinyModel& tiny) {
    for (Parameter* parameter : tiny.store.all()) {
      const View view = file.view(parameter->name());
      ASSERT_EQ(view.shape, parameter->value().shape()) << parameter->name();
      std::memcpy(parameter->value().mut().data, view.data, view.bytes());
      parameter->changed();
    }
  }
};

std::string reference_name(const ::testing::TestParamInfo<Reference>& row) { return row.param.name; }

INSTANTIATE_TEST_SUITE_P(Models, ReferenceTest,
                         ::testing::Values(Reference{"gpt2", tiny_config()}, Reference{"llama", [] {
                                             LmConfig config = tiny_llama_config();
                                             config.d_ff = 0;
                                             return config;
                                           }()}),
                         reference_name);

LmConfig with_reference_width(LmConfig config, const SafetensorsReader& file) {
  if (config.d_ff == 0) config.d_ff = file.entry("blocks.0.ffn.down.weight").shape[1];
  return config;
}

TEST_P(ReferenceTest, LogitsLossAndEveryGradientAreTheReferences) {
  TinyModel tiny(with_reference_width(GetParam().config, file));
  load(tiny);
  const Tensor tokens = ints(tiny, "tokens"), targets = ints(tiny, "targets");
  const std::vector<float> logits = tiny.logits(tokens);
  EXPECT_LT(distance(logits, floats("logits")), 1e-5 * norm(floats("logits")));
  EXPECT_NEAR(tiny.loss_and_gradients(tokens, targets), floats("loss")[0], 1e-5 * floats("loss")[0]);

  double global = 0;
  for (Parameter* parameter : tiny.store.all()) global = std::hypot(global, norm(floats("grad." + parameter->name())));
  for (Parameter* parameter : tiny.store.all()) {
    const std::span<const float> expected = floats("grad." + parameter->name());
    const std::span<const float> found(parameter->grad().view().as<float>(), expected.size());
    const double scale = norm(expected);
    EXPECT_LT(distance(found, expected), scale < 1e-6 * global ? 1e-6 * global : 1e-5 * scale) << parameter->name();
  }
}

TEST_P(ReferenceTest, TenAdamWStepsHaveTheReferencesLossesAndGradientNorms) {
  TinyModel tiny(with_reference_width(GetParam().config, file));
  load(tiny);
  const Tensor tokens = ints(tiny, "tokens"), targets = ints(tiny, "targets");
  Optimizer optimizer(AdamWSpec{0.9f, 0.95f, 1e-8f, 0.1f}, tiny.store, tiny.engine.exec);
  const Tensor sum = Tensor::empty(*tiny.engine.memory, {1}, DType::f64, MemoryUse::workspace);
  for (int step = 1; step <= 10; ++step) {
    const double loss = tiny.loss_and_gradients(tokens, targets);
    EXPECT_NEAR(loss, floats("losses")[static_cast<std::size_t>(step - 1)], 1e-5 * loss) << "step " << step;
    optimizer.set_rate(tiny.engine.exec, 1e-3f);
    const View grads = tiny.store.flat_grads().view();
    tiny.engine.kernels.elementwise.dot(tiny.engine.exec, grads, grads, Write::overwrite, sum.mut());
    optimizer.step(tiny.engine.exec, sum.view(), {}, 1.0f);
    const float expected = floats("grad_norms")[static_cast<std::size_t>(step - 1)];
    EXPECT_NEAR(optimizer.read_state(tiny.engine.exec).grad_norm, expected, 5e-5 * expected) << "step " << step;
  }
}

TEST_P(ReferenceTest, Bf16StaysNearTheReference) {
  TinyModel tiny(with_reference_width(GetParam().config, file), DType::bf16);
  load(tiny);
  const Tensor tokens = ints(tiny, "tokens"), targets = ints(tiny, "targets");
  EXPECT_NEAR(tiny.loss_and_gradients(tokens, targets), floats("loss")[0], 5e-3 * floats("loss")[0]);
  double all = 0, apart = 0;
  for (Parameter* parameter : tiny.store.all()) {
    const std::span<const float> expected = floats("grad." + parameter->name());
    all = std::hypot(all, norm(expected));
    apart = std::hypot(apart, distance({parameter->grad().view().as<float>(), expected.size()}, expected));
  }
  EXPECT_LT(apart, 3e-2 * all);
}

}  // namespace
}  // namespace weft
