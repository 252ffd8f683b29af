// One mixer alone on one CPU rank: forward, and the gradients of Σ cotangent·y.
#pragma once
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "models/mixers/mixer.hpp"
#include "parallel/comm/comm_log.hpp"
#include "parallel/mesh.hpp"
#include "tests/unit/core/cpu_engine.hpp"

namespace weft {

using MakeMixer = std::function<std::unique_ptr<Mixer>(const BuildContext&)>;

struct LoneMixer {
  explicit LoneMixer(const MakeMixer& make, int threads = 1)
      : engine(threads), mixer(make(BuildContext{Builder(store), mesh})) {
    store.allocate_values(engine.exec);
    store.allocate_grads(engine.exec);
    store.initialize(engine.exec, 3);
  }

  Tensor tensor(std::span<const float> values, Shape shape) {
    Tensor result = Tensor::empty(*engine.memory, shape, DType::f32, MemoryUse::activation);
    std::memcpy(result.mut().data, values.data(), result.view().bytes());
    return result;
  }

  struct Gradients {
    std::vector<float> y, dx;
  };
  /// x, cotangent [B, T, D]; gradients of parameters stand in the store.
  Gradients run(std::span<const float> x_BTD, std::span<const float> cotangent_BTD, Shape shape) {
    Tape tape;
    OpContext cx{engine.exec, &tape, DType::f32, {}, nullptr};
    cx.tokens = {0, shape[1], shape[1], {0, 0}, shape[1]};
    store.begin_step();
    tape.begin(MicroBatch::last);
    Tensor x = tensor(x_BTD, shape);
    tape.watch(x);
    const Tensor y = mixer->forward(cx, {x}, nullptr);
    tape.backward(engine.exec, y, tensor(cotangent_BTD, shape));
    finish_unused(engine.exec, store.all());
    return {values(y), values(tape.grad_of(x))};
  }
  /// y alone, going on from a state.
  std::vector<float> go_on(std::span<const float> x_BTD, Shape shape, MixerState& state) {
    OpContext cx{engine.exec, nullptr, DType::f32, {}, nullptr};
    cx.tokens = {0, shape[1], shape[1], {state.length, 0}, shape[1]};
    return values(mixer->forward(cx, {tensor(x_BTD, shape)}, &state));
  }
  static std::vector<float> values(const Tensor& from) {
    const float* data = from.view().as<float>();
    return {data, data + from.numel()};
  }

  CpuEngine engine;
  CommLog log;
  std::unique_ptr<Communicator> world = make_self_communicator(log);
  Mesh mesh{*world, log, {}};
  ParameterStore store;
  std::unique_ptr<Mixer> mixer;
};

}  // namespace weft
