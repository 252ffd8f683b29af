#include "models/mixers/affine_recurrence.hpp"

#include <algorithm>
#include <cmath>

#include "core/ops/scan.hpp"
#include "parallel/layers/channels.hpp"
#include "parallel/layers/token_neighbours.hpp"

namespace weft {
namespace {

class AffineRecurrence final : public Mixer {
 public:
  AffineRecurrence(const BuildContext& build, const MixerOptions& options, const AffineRecurrenceOptions& recurrence)
      : causal_(options.causal), width_(options.d_model), window_(recurrence.window),
        held_(held_channels(build, width_)),
        in_(build.child("in"), width_ * window_, traits_of(recurrence.cell).gates * width_,
            channel_rows(held_, traits_of(recurrence.cell).gates, width_),
            {options.bias, 1 / std::sqrt(3.0 * static_cast<double>(width_ * window_))}),
        out_(build.child("out"), width_, width_, held_, {options.bias, options.out_deviation}) {
    scan_.cell = recurrence.cell;
    scan_.neighbours = token_neighbours(build);
    if (causal_) return;
    if (width_ % 2 != 0) fail_user("--d-model: two directions do not divide {} channels", width_);
    scan_.reverse_from = std::clamp<std::int64_t>(width_ / 2 - held_.begin, 0, held_.size());
  }

  MixerTraits traits() const override { return {.causal = causal_, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    WEFT_CHECK(!state || causal_, "two directions carry no state");
    const ops::Windowed seen =
        ops::window(cx, input.x, window_, state && window_ > 1 ? state->carried(1) : Tensor{}, scan_.neighbours);
    const ops::Scanned scanned =
        ops::scan(cx, scan_, in_.forward(cx, seen.y), {}, {}, state ? state->carried(0) : Tensor{});
    if (state) {
      std::vector<Tensor> carried{scanned.final};
      if (window_ > 1) carried.push_back(seen.history);
      state->carry(std::move(carried), input.x.shape()[1]);
    }
    return out_.forward(cx, scanned.h);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType dtype) const override {
    MixerState state{{Tensor::empty(memory, {batch, held_.size()}, DType::f32, MemoryUse::activation)}, 0};
    if (window_ > 1)
      state.tensors.push_back(Tensor::empty(memory, {batch, window_ - 1, width_}, dtype, MemoryUse::activation));
    return state;
  }

 private:
  bool causal_;
  std::int64_t width_, window_;
  Range held_;  ///< channels of this rank
  ColumnLinear in_;
  RowLinear out_;
  ops::ScanOptions scan_;
};

}  // namespace

std::unique_ptr<Mixer> make_affine_recurrence(const BuildContext& build, const MixerOptions& options,
                                              const AffineRecurrenceOptions& recurrence) {
  return std::make_unique<AffineRecurrence>(build, options, recurrence);
}

std::unique_ptr<Mixer> make_qrnn(const BuildContext& build, const MixerOptions& options) {
  return make_affine_recurrence(build, options, {ScanCell::qrnn_fo, 2});
}

std::unique_ptr<Mixer> make_qrnn_f(const BuildContext& build, const MixerOptions& options) {
  return make_affine_recurrence(build, options, {ScanCell::qrnn_f, 1});
}

std::unique_ptr<Mixer> make_mingru(const BuildContext& build, const MixerOptions& options) {
  return make_affine_recurrence(build, options, {ScanCell::mingru, 1});
}

std::unique_ptr<Mixer> make_minlstm(const BuildContext& build, const MixerOptions& options) {
  return make_affine_recurrence(build, options, {ScanCell::minlstm, 1});
}

}  // namespace weft
