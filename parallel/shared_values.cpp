#include "parallel/shared_values.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "parallel/grad_buckets.hpp"

namespace weft {

SharedValues::SharedValues(ExecContext& exec, ParameterStore& store, Mesh& mesh, ZeroStage zero)
    : exec_(exec), store_(store), zero_(zero) {
  const auto& places = store.places();
  for (std::size_t b = 0; b < store.buckets().size(); ++b) {
    const ParameterStore::Bucket& bucket = store.buckets()[b];
    buckets_.push_back({&mesh.comm(summed_axes(places[bucket.first_place].parameter->slice())), {}, {}});
    auto unit = std::ranges::find(units_, bucket.unit, &Unit::name);
    if (unit == units_.end()) unit = units_.insert(unit, {bucket.unit, {}, false});
    unit->buckets.push_back(b);
    if (zero == ZeroStage::none) continue;
    for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i)
      places[i].parameter->before_use = [this, b, of = static_cast<std::size_t>(unit - units_.begin())](Parameter&,
                                                                                                        Pass) {
        if (zero_ == ZeroStage::parameters) enter(of);
        buckets_[b].work.wait();
      };
  }
  current_ = units_.size();
}

SharedValues::~SharedValues() {
  for (Bucket& bucket : buckets_) drain(bucket.work);
  for (Parameter* parameter : store_.all()) parameter->before_use = nullptr;
}

void SharedValues::begin_pass() {
  // An evaluation between steps leaves its last unit, which a recorded pass must gather itself.
  if (std::exchange(entered_outside_, false)) forget();
  in_pass_ = true;
  current_ = units_.size();
  before_ = std::exchange(order_, {});
}

void SharedValues::end_pass() { in_pass_ = false; }

void SharedValues::enter(std::size_t unit) {
  if (unit == current_) return;
  current_ = unit;
  // What was gathered ahead and is not needed after all goes too.
  give_back_all_but(unit);
  gather(unit);
  if (!in_pass_) {
    entered_outside_ = true;
    return;
  }
  order_.push_back(unit);
  const std::size_t done = order_.size();
  if (done < before_.size() && std::ranges::equal(order_, std::span(before_).first(done))) gather(before_[done]);
}

void SharedValues::gather(std::size_t index) {
  Unit& unit = units_[index];
  if (std::exchange(unit.present, true)) return;
  for (const std::size_t b : unit.buckets) {
    const ParameterStore::Bucket& bucket = store_.buckets()[b];
    const View own = store_.flat_values().view().slice(bucket.kept_at, bucket.kept_at + bucket.kept.size());
    Tensor& all = buckets_[b].gathered;
    all = Tensor::empty(exec_.memory(), {bucket.end - bucket.begin}, DType::f32, MemoryUse::parameter);
    buckets_[b].work = buckets_[b].group->all_gather(own, all.mut(), all.keep_alive());
    for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i) {
      const ParameterStore::Place& place = store_.places()[i];
      place.parameter->set_value(all.window(place.offset - bucket.begin, place.parameter->shape()));
    }
  }
}

void SharedValues::give_back(std::size_t index) {
  Unit& unit = units_[index];
  if (!std::exchange(unit.present, false)) return;
  for (const std::size_t b : unit.buckets) {
    buckets_[b].work.wait();
    buckets_[b].work = {};
    buckets_[b].gathered = {};
    const ParameterStore::Bucket& bucket = store_.buckets()[b];
    for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i) store_.places()[i].parameter->drop_value();
  }
}

void SharedValues::give_back_all_but(std::size_t kept) {
  for (std::size_t unit = 0; unit < units_.size(); ++unit)
    if (unit != kept) give_back(unit);
}

void SharedValues::forget() {
  give_back_all_but(units_.size());
  current_ = units_.size();
}

void SharedValues::replayed() {
  if (zero_ == ZeroStage::parameters) forget();
}

void SharedValues::updated() {
  if (zero_ == ZeroStage::none) return;
  if (zero_ == ZeroStage::parameters) return forget();
  // Those that lie last are used first.
  for (std::size_t b = buckets_.size(); b-- > 0;) {
    const ParameterStore::Bucket& bucket = store_.buckets()[b];
    const Tensor& flat = store_.flat_values();
    buckets_[b].work = buckets_[b].group->all_gather(flat.view().slice(bucket.kept.begin, bucket.kept.end),
                                                     flat.mut().slice(bucket.begin, bucket.end), flat.keep_alive());
  }
}

void SharedValues::settle() {
  for (Bucket& bucket : buckets_) bucket.work.wait();
}

}  // namespace weft
