// A small model on one CPU rank, for tests.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "core/optim/optimizer.hpp"
#include "models/language_model.hpp"
#include "parallel/comm/comm_log.hpp"
#include "parallel/mesh.hpp"
#include "tests/unit/core/cpu_engine.hpp"

namespace weft {

struct TinyModel {
  explicit TinyModel(const LmConfig& config, DType dtype = DType::f32, int threads = 1)
      : engine(threads), compute(dtype), model(BuildContext{Builder(store), mesh}, config) {
    store.allocate_values(engine.exec);
    store.allocate_grads(engine.exec);
    store.initialize(engine.exec, 1);
  }

  Tensor ints(const std::vector<std::int32_t>& values, Shape shape) {
    Tensor tensor = Tensor::empty(*engine.memory, shape, DType::i32, MemoryUse::activation);
    std::memcpy(tensor.mut().data, values.data(), tensor.view().bytes());
    return tensor;
  }
  Tensor floats(std::int64_t count, float value) {
    Tensor tensor = Tensor::empty(*engine.memory, {count}, DType::f32, MemoryUse::activation);
    engine.kernels.elementwise.fill(engine.exec, value, tensor.mut());
    return tensor;
  }
  OpContext context(Tape* tape, std::int64_t seq) {
    OpContext cx{engine.exec, tape, compute, {}, nullptr};
    cx.tokens = {0, seq, seq, {0, 0}, seq};
    return cx;
  }
  /// f32 logits [B·T, V].
  std::vector<float> logits(const Tensor& tokens) {
    OpContext cx = context(nullptr, tokens.shape()[1]);
    const Tensor hidden = model.hidden(cx, tokens);
    const Tensor out = model.logits(cx, hidden.reshaped({hidden.view().rows(), hidden.view().cols()}));
    const Tensor wide = Tensor::empty(*engine.memory, out.shape(), DType::f32, MemoryUse::activation);
    engine.kernels.elementwise.copy(engine.exec, out.view(), wide.mut());
    const float* data = wide.view().as<float>();
    return {data, data + wide.numel()};
  }
  /// Mean loss, with gradients in the parameters.
  double loss_and_gradients(const Tensor& tokens, const Tensor& targets) {
    Tape tape;
    OpContext cx = context(&tape, tokens.shape()[1]);
    store.begin_step();
    tape.begin(MicroBatch::last);
    const Tensor weights = floats(tokens.numel(), 1);
    const ops::CrossEntropy loss =
        model.loss(cx, tokens, {targets.view().reshaped({targets.numel()}), weights.view(), 1.0f / static_cast<float>(tokens.numel())});
    tape.backward(engine.exec, loss.loss);
    finish_unused(engine.exec, store.all());
    return *loss.loss.view().as<double>();
  }

  CpuEngine engine;
  DType compute;
  CommLog log;
  std::unique_ptr<Communicator> world = make_self_communicator(log);
  Mesh mesh{*world, log, {}};
  ParameterStore store;
  LanguageModel model;
};

inline LmConfig tiny_config() {
  LmConfig config;
  config.vocab = 61;
  config.layers = 2;
  config.d_model = 32;
  config.heads = config.kv_heads = 4;
  config.d_ff = 128;
  config.max_seq = 16;
  return config;
}

inline LmConfig tiny_llama_config() {
  LmConfig config = tiny_config();
  config.norm = NormStyle::rms;
  config.feed_forward = FeedForwardStyle::swiglu;
  config.positions = PositionStyle::rotary;
  config.bias = config.tied = false;
  config.kv_heads = 2;
  return config;
}

}  // namespace weft
