#include "launcher/lens/specimen.hpp"

#include <algorithm>
#include <limits>

#include "core/base/philox.hpp"
#include "launcher/sharding_setup.hpp"
#include "models/registry.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

constexpr std::int64_t usual_head_width = 64;

}  // namespace

LmConfig lens_config(const std::string& model, std::int64_t width) {
  LmConfig config;
  config.mixer = model;
  config.d_model = width;
  config.heads = std::max<std::int64_t>(1, width / usual_head_width);
  while (width % config.heads != 0) --config.heads;
  config.kv_heads = config.heads;
  // There is neither, so neither is too narrow for the ranks.
  config.d_ff = config.vocab = std::numeric_limits<int>::max();
  return config;
}

std::string lens_misfit(const LmConfig& config, const MeshSizes& sizes, LensShape shape) {
  return layout_misfit(sizes, {}, config, {shape.seq, shape.batch});
}

Specimen::Specimen(Engine& engine, Mesh& mesh, const LmConfig& config, DType compute, std::uint64_t seed,
                   std::int64_t relay_parts)
    : engine_(engine), mesh_(mesh), config_(config), compute_(compute), seed_(seed),
      sharding_(plan_sharding({.relay_parts = relay_parts}, config, {}, mesh)) {
  MixerOptions options;
  options.d_model = config.d_model;
  options.heads = config.heads;
  options.kv_heads = config.kv_heads;
  const BuildContext build{Builder(store_), mesh, sharding_};
  group_.emplace(build);
  mixer_ = find_mixer(config.mixer).make(build, options);
  ExecContext& exec = engine.exec();
  allocate_parameters(exec, store_, mesh, ZeroStage::none);
  store_.initialize(exec, seed);
  buckets_.emplace(exec, store_, mesh, BucketOptions{});
}

OpContext Specimen::context(LensShape shape, Tape* tape) const {
  OpContext cx{engine_.exec(), tape, compute_, {}, nullptr};
  const std::int64_t sequences = shape.batch / mesh_.size(Axis::dp);
  cx.tokens = share_tokens(shape.seq, token_order(sharding_), mesh_.size(Axis::sp), mesh_.coordinate(Axis::sp));
  cx.tokens.first_sequence = mesh_.coordinate(Axis::dp) * sequences;
  group_->open(cx, sequences, cx.tokens.seq_local, false);
  return cx;
}

Tensor Specimen::random(LensShape shape, std::string_view name) const {
  ExecContext& exec = engine_.exec();
  const OpContext cx = context(shape, nullptr);
  const std::int64_t width = config_.d_model;
  const Shape here = group_->stream_shape(cx, width);
  const PhiloxKey key = philox_key(seed_, name);
  const TokenMap rows = cx.on_stream().tokens;
  std::vector<float> values(static_cast<std::size_t>(here.numel()));
  for (std::int64_t row = 0; row < here.numel() / width; ++row) {
    if (rows.share.row(row) >= cx.rows) continue;  // fills the last chunk up
    const auto first = static_cast<std::uint64_t>(rows.global_row(row) * width);
    for (std::int64_t d = 0; d < width; ++d)
      values[static_cast<std::size_t>(row * width + d)] =
          static_cast<float>(normal(key, first + static_cast<std::uint64_t>(d)));
  }
  const Tensor wide = Tensor::empty(exec.memory(), here, DType::f32, MemoryUse::workspace);
  exec.kernels().transfer.upload(exec, View(values.data(), here, DType::f32), wide.mut());
  Tensor made = Tensor::empty(exec.memory(), here, compute_, MemoryUse::workspace);
  exec.kernels().elementwise.copy(exec, wide.view(), made.mut());
  return made;
}

Tensor Specimen::forward(Tensor& x, LensShape shape, Tape& tape) {
  store_.begin_step();
  buckets_->begin_step();
  buckets_->begin_round();
  tape.begin(MicroBatch::last);
  tape.watch(x);
  OpContext cx = context(shape, &tape);
  return mixer_->forward(cx, {x}, nullptr);
}

void Specimen::backward(Tape& tape, const Tensor& y, const Tensor& dy) {
  tape.backward(engine_.exec(), y, dy);
  finish_unused(engine_.exec(), store_.all());
  buckets_->finish();
}

std::vector<float> on_host(ExecContext& exec, const Tensor& tensor) {
  const Tensor wide = Tensor::empty(exec.memory(), tensor.shape(), DType::f32, MemoryUse::workspace);
  exec.kernels().elementwise.copy(exec, tensor.view(), wide.mut());
  std::vector<float> values(static_cast<std::size_t>(wide.numel()));
  exec.kernels().transfer.download(exec, wide.view(), MutView(values.data(), wide.shape(), DType::f32));
  return values;
}

}  // namespace weft
