// The recurrent operations against PyTorch: tests/reference/make_recurrent.py wrote the values (float64, stored as f32).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "core/io/safetensors.hpp"
#include "core/nn/parameter_store.hpp"
#include "core/ops/linear.hpp"
#include "core/ops/recurrent.hpp"
#include "tests/unit/core/cpu_engine.hpp"

namespace weft {
namespace {

struct Layer {
  std::string name;
  RecurrentCell cell;
};

void PrintTo(const Layer& layer, std::ostream* out) { *out << layer.name; }

class RecurrentReference : public ::testing::TestWithParam<Layer> {
 protected:
  RecurrentReference() {
    for (const char* name : {"input.weight", "input.bias", "hidden.weight", "hidden.bias"})
      if (file_.find(key(name)))
        parameters_[name] = &store_.add(name, Slice::whole(file_.view(key(name)).shape), Init::zeros());
    store_.allocate_values(engine_.exec);
    store_.allocate_grads(engine_.exec);
    for (const auto& [name, parameter] : parameters_) {
      std::memcpy(parameter->value().mut().data, file_.view(key(name)).data, parameter->value().view().bytes());
      parameter->changed();
    }
    store_.begin_step();
  }

  std::string key(const std::string& name) const { return GetParam().name + "." + name; }
  bool lstm() const { return GetParam().cell == RecurrentCell::lstm; }

  Tensor tensor(const std::string& name) {
    const View view = file_.view(key(name));
    Tensor result = Tensor::empty(*engine_.memory, view.shape, DType::f32, MemoryUse::activation);
    std::memcpy(result.mut().data, view.data, view.bytes());
    return result;
  }
  void expect_reference(const Tensor& found, const std::string& name) {
    const View right = file_.view(key(name));
    ASSERT_EQ(found.numel(), right.numel()) << name;
    double error = 0, norm = 0;
    for (std::int64_t i = 0; i < right.numel(); ++i) {
      const double expected = right.as<float>()[i];
      error += (found.view().as<float>()[i] - expected) * (found.view().as<float>()[i] - expected);
      norm += expected * expected;
    }
    EXPECT_LT(std::sqrt(error), 1e-5 * std::sqrt(norm)) << name;
  }
  ops::RecurrentOutput run(OpContext& cx, const Tensor& x, const ops::RecurrentState& first) {
    return ops::recurrent(cx, GetParam().cell,
                          ops::linear(cx, x, *parameters_.at("input.weight"), parameters_.at("input.bias")),
                          *parameters_.at("hidden.weight"), parameters_["hidden.bias"], first);
  }

  SafetensorsReader file_{std::filesystem::path(WEFT_REFERENCE_DATA) / "recurrent.safetensors"};
  CpuEngine engine_{2};
  ParameterStore store_;
  std::map<std::string, Parameter*> parameters_;
};

TEST_P(RecurrentReference, OutputsFinalStatesAndEveryGradientArePyTorchs) {
  Tape tape;
  tape.begin(MicroBatch::last);
  OpContext cx{engine_.exec, &tape, DType::f32, {}, nullptr};
  Tensor x = tensor("x");
  ops::RecurrentState first{tensor("h_first"), lstm() ? tensor("c_first") : Tensor{}};
  tape.watch(x);
  tape.watch(first.h);
  if (lstm()) tape.watch(first.c);
  ops::RecurrentOutput out = run(cx, x, first);
  expect_reference(out.y, "y");
  expect_reference(out.last.h, "h_last");
  if (lstm()) expect_reference(out.last.c, "c_last");

  // All outputs lead to one root, whose gradient is 1.
  Tensor root = Tensor::empty(*engine_.memory, {1}, DType::f32, MemoryUse::activation);
  tape.record({"weigh", {&out.y, &out.last.h, lstm() ? &out.last.c : nullptr}, {&root}, {}, {}, {}},
              [this](BackwardPass& pass) {
                pass.give(0, tensor("cotangent.y"));
                pass.give(1, tensor("cotangent.h_last"));
                if (lstm()) pass.give(2, tensor("cotangent.c_last"));
              });
  tape.backward(engine_.exec, root);
  expect_reference(tape.grad_of(x), "grad.x");
  expect_reference(tape.grad_of(first.h), "grad.h_first");
  if (lstm()) expect_reference(tape.grad_of(first.c), "grad.c_first");
  for (const auto& [name, parameter] : parameters_)
    if (parameter) expect_reference(parameter->grad(), "grad." + name);
}

TEST_P(RecurrentReference, WithoutATapeTheStateMovesOnInItsOwnMemory) {
  OpContext cx{engine_.exec, nullptr, DType::f32, {}, nullptr};
  const ops::RecurrentState state{tensor("h_first"), lstm() ? tensor("c_first") : Tensor{}};
  const ops::RecurrentOutput out = run(cx, tensor("x"), state);
  expect_reference(out.y, "y");
  expect_reference(state.h, "h_last");
  EXPECT_EQ(out.last.h.view().data, state.h.view().data);
  if (lstm()) expect_reference(state.c, "c_last");
}

TEST_P(RecurrentReference, TheLedgerCountsEachStepAsALevel) {
  Tape tape;
  tape.begin(MicroBatch::last);
  OpContext cx{engine_.exec, &tape, DType::f32, {}, nullptr};
  const Tensor x = tensor("x");
  const ops::RecurrentOutput out = run(cx, x, {});
  const double steps = static_cast<double>(x.shape()[1]);
  EXPECT_EQ(tape.ledger().totals(Pass::forward).span, 1 + steps);
  EXPECT_EQ(tape.ledger().totals(Pass::forward).span_min, 1 + steps);
}

INSTANTIATE_TEST_SUITE_P(Layers, RecurrentReference,
                         ::testing::Values(Layer{"elman", RecurrentCell::elman}, Layer{"lstm", RecurrentCell::lstm},
                                           Layer{"gru", RecurrentCell::gru}),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace weft
