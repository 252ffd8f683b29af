// U = x W, then f = σ(u1 + v_f⊙c⁻ + b_f), r = σ(u2 + v_r⊙c⁻ + b_r), c = f⊙c⁻ + (1−f)⊙u0, h = r⊙m⊙(g(c) − x′) + x′ with x′ = αx
// or, between different widths, x′ = u3. In two directions the latter half of the channels runs from the last token on.
#include "models/mixers/sru.hpp"

#include <cmath>
#include <optional>

#include "core/nn/layers.hpp"
#include "core/ops/scan.hpp"

namespace weft {
namespace {

class Sru final : public Mixer {
 public:
  Sru(const BuildContext& build, const MixerOptions& options, const SruOptions& sru)
      : causal_(options.causal), dropout_(options.dropout), width_(sru.width > 0 ? sru.width : options.d_model),
        own_skip_(width_ != options.d_model) {
    if (!causal_ && width_ % 2 != 0)
      fail_user("--d-model: two directions do not divide a state of {} channels", width_);
    const std::int64_t columns = (own_skip_ ? 4 : 3) * width_;
    const auto bound = std::sqrt(6.0 / static_cast<double>(options.d_model + columns));  // Glorot & Bengio 2010
    weight_ = &build.build.child("in").param("weight", Slice::whole({columns, options.d_model}), Init::uniform(bound));
    const auto channels = [&](const char* name, Init init) {
      return &build.build.param(name, Slice::whole({width_}), init);
    };
    scan_.cell = sru.state_in_gates ? ScanCell::sru : ScanCell::sru_affine;
    if (sru.state_in_gates) {
      scan_.v_f = channels("v_f", Init::uniform(1));
      scan_.v_r = channels("v_r", Init::uniform(1));
    }
    scan_.b_f = channels("b_f", Init::zeros());
    scan_.b_r = channels("b_r", {Init::Kind::constant, sru.highway_bias});
    scan_.tanh = sru.tanh;
    scan_.skip_in_u = own_skip_;
    if (sru.rescale && !own_skip_) scan_.skip_scale = std::sqrt(1 + 2 * std::exp(sru.highway_bias));
    if (!causal_) scan_.reverse_from = width_ / 2;
    if (own_skip_)
      out_.emplace(build.build.child("out"), width_, options.d_model,
                   nn::LinearOptions{options.bias, options.out_deviation});
    dropout_site_ = build.build.dropout_site();
  }

  MixerTraits traits() const override { return {.causal = causal_, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    WEFT_CHECK(!state || causal_, "two directions carry no state");
    const Tensor& x = input.x;
    const Tensor u = ops::linear(cx, x, *weight_, nullptr);
    const Tensor mask = ops::sequence_dropout(cx, x.shape()[0], width_, dropout_, dropout_site_);
    const ops::Scanned scanned =
        ops::scan(cx, scan_, u, own_skip_ ? Tensor{} : x, mask, state ? state->carried(0) : Tensor{});
    if (state) state->carry({scanned.final}, x.shape()[1]);
    return out_ ? out_->forward(cx, scanned.h) : scanned.h;
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType) const override {
    return {{Tensor::empty(memory, {batch, width_}, DType::f32, MemoryUse::activation)}, 0};
  }

 private:
  bool causal_;
  float dropout_;
  std::int64_t width_;
  bool own_skip_;
  Parameter* weight_ = nullptr;
  ops::ScanOptions scan_;
  std::optional<nn::Linear> out_;
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
