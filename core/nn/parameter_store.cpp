#include "core/nn/parameter_store.hpp"

#include <algorithm>
#include <thread>

#include "core/base/philox.hpp"
#include "core/kernels/table.hpp"

namespace weft {
namespace {

constexpr std::int64_t alignment = 16;  // elements: one cache line

constexpr std::int64_t values_at_a_time = 1 << 22;

void fill_part(float* out, std::int64_t global, std::int64_t count, const Init& init, PhiloxKey key) {
  switch (init.kind) {
    case Init::Kind::constant: std::fill_n(out, count, static_cast<float>(init.scale)); return;
    case Init::Kind::normal:
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = static_cast<float>(init.scale * normal(key, static_cast<std::uint64_t>(global + i)));
      return;
    case Init::Kind::uniform:
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = static_cast<float>(init.scale *
                                    (2.0 * uniform(philox_word(key, static_cast<std::uint64_t>(global + i))) - 1.0));
      return;
    case Init::Kind::ones_in:
      for (std::int64_t i = 0; i < count; ++i) out[i] = global + i >= init.begin && global + i < init.end ? 1.0f : 0.0f;
      return;
  }
}

void fill_run(float* out, std::int64_t global, std::int64_t count, const Init& init, PhiloxKey key, int threads) {
  constexpr std::int64_t chunk = 1 << 16;
  const auto worker = [&](std::int64_t first) {
    for (std::int64_t at = first * chunk; at < count; at += threads * chunk)
      fill_part(out + at, global + at, std::min(chunk, count - at), init, key);
  };
  std::vector<std::jthread> helpers;
  for (std::int64_t t = 1; t < threads && t * chunk < count; ++t) helpers.emplace_back(worker, t);
  worker(0);
}

std::int64_t round_up(std::int64_t count, std::int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

// "blocks.3" of "blocks.3.mixer.qkv.weight", "embed" of "embed.tokens.weight".
std::string_view unit_of(std::string_view name) {
  const auto first = std::min(name.find('.'), name.size());
  const auto second = std::min(name.find('.', first + 1), name.size());
  const bool numbered = first + 1 < name.size() && name[first + 1] >= '0' && name[first + 1] <= '9';
  return name.substr(0, numbered ? second : first);
}

Tensor zeros(ExecContext& exec, std::int64_t count, MemoryUse use) {
  Tensor made = Tensor::empty(exec.memory(), {count}, DType::f32, use);
  exec.kernels().elementwise.fill(exec, 0.0f, made.mut());
  return made;
}

}  // namespace

Parameter& ParameterStore::add(std::string name, Slice slice, Init init) {
  WEFT_CHECK(!find(name), "two parameters named {}", name);
  Parameter& parameter = parameters_.emplace_back(std::move(name), std::move(slice), init);
  order_.push_back(&parameter);
  return parameter;
}

void ParameterStore::add_alias(std::string alias, const Parameter& parameter) {
  aliases_.push_back({std::move(alias), parameter.name()});
}

Parameter* ParameterStore::find(const std::string& name) const {
  const auto found = std::ranges::find(order_, name, [](const Parameter* p) { return p->name(); });
  return found == order_.end() ? nullptr : *found;
}

std::int64_t ParameterStore::global_numel() const {
  std::int64_t count = 0;
  for (const Parameter* parameter : order_) count += parameter->slice().global_shape.numel();
  return count;
}

void ParameterStore::lay_out(const FlatCut& cut) {
  WEFT_CHECK(!flat_values_.defined() && !flat_grads_.defined(), "parameters are in memory already");
  places_.clear();
  buckets_.clear();
  flat_size_ = kept_size_ = 0;
  std::vector<Parameter*> ordered(order_.rbegin(), order_.rend());
  for (auto begin = ordered.begin(); begin != ordered.end();)
    begin = std::stable_partition(begin, ordered.end(), [placement = (*begin)->slice().placement](const Parameter* p) {
      return p->slice().placement == placement;
    });
  std::int64_t weight = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    const Slice& slice = ordered[i]->slice();
    const std::int64_t count = slice.numel();
    places_.push_back({ordered[i], flat_size_, count, buckets_.size(), {0, count}, 0});
    flat_size_ += round_up(count, alignment);
    weight += cut.weight ? cut.weight(slice) : round_up(count, alignment);
    const Parameter* next = i + 1 < ordered.size() ? ordered[i + 1] : nullptr;
    if (next && static_cast<std::size_t>(weight) * sizeof(float) < cut.bucket_bytes &&
        next->slice().placement == slice.placement &&
        !(cut.at_units && unit_of(next->name()) != unit_of(ordered[i]->name())))
      continue;
    cut_bucket(cut, first, i + 1);
    first = i + 1;
    weight = 0;
  }
}

void ParameterStore::cut_bucket(const FlatCut& cut, std::size_t first, std::size_t end) {
  const Parameter& parameter = *places_[first].parameter;
  const FlatCut::Share share = cut.share ? cut.share(parameter.slice()) : FlatCut::Share{};
  Bucket bucket{places_[first].offset, 0, {}, kept_size_, first, end, std::string(unit_of(parameter.name()))};
  bucket.end = bucket.begin + round_up(flat_size_ - bucket.begin, alignment * share.ranks);
  flat_size_ = bucket.end;
  const std::int64_t part = (bucket.end - bucket.begin) / share.ranks;
  bucket.kept = {bucket.begin + share.rank * part, bucket.begin + (share.rank + 1) * part};
  kept_size_ += part;
  for (std::size_t i = first; i < end; ++i) {
    Place& place = places_[i];
    const auto inside = [&](std::int64_t at) { return std::clamp<std::int64_t>(at - place.offset, 0, place.count); };
    place.kept = {inside(bucket.kept.begin), inside(bucket.kept.end)};
    place.kept_at = bucket.kept_at + place.offset + place.kept.begin - bucket.kept.begin;
  }
  buckets_.push_back(std::move(bucket));
}

void ParameterStore::lay_out_once() {
  if (places_.empty()) lay_out({});
}

void ParameterStore::allocate_values(ExecContext& exec, FlatExtent extent) {
  lay_out_once();
  values_extent_ = extent;
  flat_values_ = zeros(exec, extent == FlatExtent::whole ? flat_size_ : kept_size_, MemoryUse::parameter);
  if (extent == FlatExtent::kept) return;
  for (const Place& place : places_)
    place.parameter->set_value(flat_values_.window(place.offset, place.parameter->shape()));
}

void ParameterStore::allocate_grads(ExecContext& exec, FlatExtent extent) {
  lay_out_once();
  grads_extent_ = extent;
  flat_grads_ = zeros(exec, extent == FlatExtent::whole ? flat_size_ : kept_size_, MemoryUse::gradient);
  if (extent == FlatExtent::kept) return;
  for (const Place& place : places_)
    place.parameter->set_grad(flat_grads_.window(place.offset, place.parameter->shape()));
}

ParameterStore::Stored ParameterStore::kept_part(const Place& place, const Tensor& flat, FlatExtent extent) const {
  Stored stored{place.parameter->slice(), {}};
  if (place.kept.size() != place.count) stored.slice.flat = {place.kept.begin, place.kept.end};
  const std::int64_t at = extent == FlatExtent::whole ? place.offset + place.kept.begin : place.kept_at;
  stored.data = flat.window(place.kept.size() > 0 ? at : 0, {place.kept.size()});
  return stored;
}

ParameterStore::Stored ParameterStore::stored_value(const Place& place) const {
  if (values_extent_ == FlatExtent::kept) return kept_part(place, flat_values_, values_extent_);
  return {place.parameter->slice(), flat_values_.window(place.offset, {place.count})};
}

ParameterStore::Stored ParameterStore::stored_grad(const Place& place) const {
  return kept_part(place, flat_grads_, grads_extent_);
}

ParameterStore::Stored ParameterStore::stored_state(const Place& place, const Tensor& flat) const {
  return kept_part(place, flat, FlatExtent::kept);
}

void ParameterStore::initialize(ExecContext& exec, std::uint64_t seed) {
  std::vector<float> values;
  for (const Place& place : places_) {
    Parameter& parameter = *place.parameter;
    const PhiloxKey key = philox_key(seed, parameter.name());
    const Stored stored = stored_value(place);
    const std::int64_t size = stored.slice.numel();
    // Local elements [begin, end) at a time, so that little lies on the host beside the device's.
    for (std::int64_t begin = 0; begin < size; begin += values_at_a_time) {
      const std::int64_t end = std::min(size, begin + values_at_a_time);
      values.resize(static_cast<std::size_t>(end - begin));
      stored.slice.for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
        const std::int64_t first = std::max(local, begin), last = std::min(local + count, end);
        if (first < last)
          fill_run(values.data() + (first - begin), global + (first - local), last - first, parameter.init(), key,
                   exec.threads());
      });
      exec.kernels().transfer.upload(exec, View(values.data(), {end - begin}, DType::f32),
                                     stored.data.mut().slice(begin, end));
    }
    parameter.changed();
  }
}

void ParameterStore::begin_step() {
  for (Parameter* parameter : order_) parameter->begin_step();
}

std::string Builder::path(std::string_view name) const {
  return prefix_.empty() ? std::string(name) : fmt::format("{}.{}", prefix_, name);
}

Builder Builder::child(std::string_view name) const {
  Builder builder = *this;
  builder.prefix_ = path(name);
  return builder;
}

Builder Builder::child(std::string_view name, std::int64_t index) const {
  return child(fmt::format("{}.{}", name, index));
}

Parameter& Builder::param(std::string_view name, Slice slice, Init init) const {
  return store_->add(path(name), std::move(slice), init);
}

void Builder::alias(std::string_view name, const Parameter& parameter) const {
  store_->add_alias(path(name), parameter);
}

}  // namespace weft
