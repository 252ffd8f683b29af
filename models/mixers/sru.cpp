// U = x W, then f = σ(u1 + v_f⊙c⁻ + b_f), r = σ(u2 + v_r⊙c⁻ + b_r), c = f⊙c⁻ + (1−f)⊙u0, h = r⊙m⊙(g(c) − x′) + x′ with x′ = αx
// or, between different widths, x′ = u3. In two directions the latter half of the channels runs from the last token on.
#include "models/mixers/sru.hpp"

#include <cmath>
#include <optional>

#include "models/mixers/sru_recurrence.hpp"
#include "parallel/layers/collective_pairs.hpp"

namespace weft {
namespace {

class Sru final : public Mixer {
 public:
  Sru(const BuildContext& build, const MixerOptions& options, const SruOptions& sru)
      : group_(build), causal_(options.causal), dropout_(options.dropout),
        width_(sru.width > 0 ? sru.width : options.d_model),
        recurrence_(build, width_,
                    width_ == options.d_model ? SruRecurrence::Skip::input : SruRecurrence::Skip::own_column, causal_,
                    sru) {
    const std::int64_t columns = recurrence_.columns() * width_;
    const auto bound = std::sqrt(6.0 / static_cast<double>(options.d_model + columns));  // Glorot & Bengio 2010
    weight_ = &build.build.child("in").param("weight", recurrence_.weight_slice(build, options.d_model),
                                             Init::uniform(bound));
    if (width_ != options.d_model)
      out_.emplace(build.child("out"), width_, options.d_model, recurrence_.held(),
                   nn::LinearOptions{options.bias, options.out_deviation});
    dropout_site_ = build.build.dropout_site();
  }

  MixerTraits traits() const override { return {.causal = causal_, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    WEFT_CHECK(!state || causal_, "two directions carry no state");
    const Tensor x = gather_forward_sum_backward(cx, group_, input.x);
    const Tensor u = ops::linear(cx, x, *weight_, nullptr);
    const Tensor mask = ops::sequence_dropout(cx, x.shape()[0], width_, recurrence_.held(), dropout_, dropout_site_);
    const ops::Scanned scanned = recurrence_.forward(cx, u, x, mask, state);
    if (state) state->carry({scanned.final}, x.shape()[1]);
    return out_ ? out_->forward(cx, scanned.h) : channels_to_stream(cx, group_, scanned.h, width_);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType) const override {
    return {{Tensor::empty(memory, {batch, recurrence_.held().size()}, DType::f32, MemoryUse::activation)}, 0};
  }

 private:
  TensorGroup group_;
  bool causal_;
  float dropout_;
  std::int64_t width_;
  SruRecurrence recurrence_;
  Parameter* weight_ = nullptr;
  std::optional<RowLinear> out_;
  int dropout_site_ = 0;
};

}  // namespace

std::unique_ptr<Mixer> make_sru_with(const BuildContext& build, const MixerOptions& options, const SruOptions& sru) {
  return std::make_unique<Sru>(build, options, sru);
}

std::unique_ptr<Mixer> make_sru(const BuildContext& build, const MixerOptions& options) {
  return make_sru_with(build, options, {});
}

std::unique_ptr<Mixer> make_sru_affine(const BuildContext& build, const MixerOptions& options) {
  return make_sru_with(build, options, {.state_in_gates = false});
}

}  // namespace weft
