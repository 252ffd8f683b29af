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

void ParameterStore::lay_out() {
  places_.clear();
  flat_size_ = 0;
  std::vector<Parameter*> ordered(order_.rbegin(), order_.rend());
  for (auto begin = ordered.begin(); begin != ordered.end();)
    begin = std::stable_partition(begin, ordered.end(), [placement = (*begin)->slice().placement](const Parameter* p) {
      return p->slice().placement == placement;
    });
  for (Parameter* parameter : ordered) {
    const std::int64_t count = parameter->slice().numel();
    places_.push_back({parameter, flat_size_, count});
    flat_size_ += (count + alignment - 1) / alignment * alignment;
  }
}

void ParameterStore::allocate_values(ExecContext& exec) {
  lay_out();
  flat_values_ = zeros(exec, flat_size_, MemoryUse::parameter);
  for (const Place& place : places_)
    place.parameter->set_value(flat_values_.window(place.offset, place.parameter->slice().local_shape()));
}

void ParameterStore::allocate_grads(ExecContext& exec) {
  lay_out();
  flat_grads_ = zeros(exec, flat_size_, MemoryUse::gradient);
  for (const Place& place : places_)
    place.parameter->set_grad(flat_grads_.window(place.offset, place.parameter->slice().local_shape()));
}

void ParameterStore::initialize(ExecContext& exec, std::uint64_t seed) {
  std::vector<float> values;
  for (Parameter* parameter : order_) {
    const PhiloxKey key = philox_key(seed, parameter->name());
    const std::int64_t size = parameter->slice().numel();
    const MutView to = parameter->value().mut().reshaped({size});
    // Local elements [begin, end) at a time, so that little lies on the host beside the device's.
    for (std::int64_t begin = 0; begin < size; begin += values_at_a_time) {
      const std::int64_t end = std::min(size, begin + values_at_a_time);
      values.resize(static_cast<std::size_t>(end - begin));
      parameter->slice().for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
        const std::int64_t first = std::max(local, begin), last = std::min(local + count, end);
        if (first < last)
          fill_run(values.data() + (first - begin), global + (first - local), last - first, parameter->init(), key,
                   exec.threads());
      });
      exec.kernels().transfer.upload(exec, View(values.data(), {end - begin}, DType::f32), to.slice(begin, end));
    }
    parameter->changed();
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
