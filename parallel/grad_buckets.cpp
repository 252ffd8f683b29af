#include "parallel/grad_buckets.hpp"

#include <algorithm>

#include "core/kernels/table.hpp"
#include "parallel/comm/agreement.hpp"

namespace weft {
namespace {

// Buckets with memory of their own that may be on their way at a time.
constexpr std::size_t most_in_flight = 3;

// Whether the ranks of a model's copy that come before this one have the whole parameter too, and count it.
bool counted_before(const Slice& slice, const Mesh& mesh, ZeroStage zero) {
  for (const Axis axis : {Axis::pp, Axis::tp}) {
    const Placement placement = slice.placement[static_cast<std::size_t>(axis)];
    const bool shared_out = zero != ZeroStage::none && placement == Placement::replicated_partial;
    if (placement != Placement::sharded && !shared_out && mesh.coordinate(axis) > 0) return true;
  }
  return false;
}

}  // namespace

AxisSet norm_axes(ZeroStage zero) {
  AxisSet axes;
  axes.set(static_cast<std::size_t>(Axis::pp)).set(static_cast<std::size_t>(Axis::tp));
  return zero == ZeroStage::none ? axes : axes.set();
}

std::vector<Range> counted_gradients(const ParameterStore& store, const Mesh& mesh, ZeroStage zero) {
  std::vector<Range> counted;
  const auto add = [&](std::int64_t begin, std::int64_t end) {
    if (!counted.empty() && counted.back().end == begin)
      counted.back().end = std::max(begin, end);
    else if (begin < end)
      counted.push_back({begin, end});
  };
  for (const ParameterStore::Bucket& bucket : store.buckets()) {
    // From places in a whole buffer to those in the one in memory.
    const std::int64_t moved = store.grads_extent() == FlatExtent::kept ? bucket.kept_at - bucket.kept.begin : 0;
    for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i) {
      const ParameterStore::Place& place = store.places()[i];
      if (counted_before(place.parameter->slice(), mesh, zero)) continue;
      const auto kept = [&](std::int64_t at) { return std::clamp(at, bucket.kept.begin, bucket.kept.end) + moved; };
      std::int64_t at = place.offset;
      for (const Box& box : place.parameter->slice().boxes) {
        if (box.copy == 0) add(kept(at), kept(at + box.size.numel()));
        at += box.size.numel();
      }
      // What fills up to the next parameter is zero, and joins it to this one.
      const std::int64_t next = i + 1 < bucket.end_place ? store.places()[i + 1].offset : bucket.end;
      if (!counted.empty() && counted.back().end == kept(at)) add(kept(at), kept(next));
    }
  }
  return counted;
}

GradBuckets::GradBuckets(ExecContext& exec, ParameterStore& store, Mesh& mesh, BucketOptions options)
    : exec_(exec), store_(store), options_(options) {
  WEFT_CHECK(store.flat_grads().defined(), "gradients are not allocated");
  std::string order;
  const auto& places = store.places();
  for (std::size_t b = 0; b < store.buckets().size(); ++b) {
    const ParameterStore::Bucket& bucket = store.buckets()[b];
    const AxisSet axes = summed_axes(places[bucket.first_place].parameter->slice());
    buckets_.push_back({&mesh.comm(axes), 0, {}, {}, {}});
    for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i) {
      Parameter& parameter = *places[i].parameter;
      parameter.on_grad_ready = [this, b, i, runs = shared_runs(places[i], mesh)](Parameter&) { ready(b, i, runs); };
      if (sums_each_round()) parameter.make_grad = [this, b](Parameter&) { make_grads(b); };
      order += fmt::format("bucket {} over {}: {} {}\n", b, axes.to_string(), parameter.name(),
                           to_string(parameter.slice().global_shape));
    }
  }
  check_same_on_all_ranks(mesh.comm({Axis::dp, Axis::sp, Axis::tp}), "gradient buckets", order);
}

std::vector<GradBuckets::SharedRun> GradBuckets::shared_runs(const ParameterStore::Place& place, Mesh& mesh) {
  std::vector<SharedRun> runs;
  std::int64_t at = 0;
  for (const Box& box : place.parameter->slice().boxes) {
    const std::int64_t end = at + box.size.numel();
    if (box.copies > 1) {
      std::unique_ptr<Communicator>& holders = holders_[box.copies];
      if (!holders) {
        const int rank = mesh.coordinate(Axis::tp);
        holders = mesh.comm(Axis::tp).split(rank / box.copies, rank, fmt::format("tp/{}", box.copies));
      }
      if (!runs.empty() && runs.back().end == at && runs.back().group == holders.get())
        runs.back().end = end;
      else
        runs.push_back({at, end, holders.get()});
    }
    at = end;
  }
  return runs;
}

void drain(Work& work) noexcept {
  constexpr double patience = 10;  // seconds
  try {
    work.wait_for(patience);
  } catch (const std::exception&) {  // the error that unwinds is the one to report
  }
}

GradBuckets::~GradBuckets() {
  for (Bucket& bucket : buckets_) drain(bucket.work);
  for (Work& work : shared_works_) drain(work);
  for (Parameter* parameter : store_.all()) parameter->on_grad_ready = parameter->make_grad = nullptr;
}

void GradBuckets::begin_step() {
  rounds_ = 0;
  for (const Bucket& bucket : buckets_)
    WEFT_CHECK(bucket.work.done(), "a gradient bucket of the last step is still in flight");
}

void GradBuckets::begin_round() {
  ++rounds_;
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    const ParameterStore::Bucket& places = store_.buckets()[b];
    WEFT_CHECK(buckets_[b].pending == 0, "a parameter was not declared ready");
    buckets_[b].pending = static_cast<int>(places.end_place - places.first_place);
  }
}

MutView GradBuckets::all_grads(std::size_t index) const {
  if (sums_each_round()) return buckets_[index].grads.mut();
  return store_.flat_grads().mut().slice(store_.buckets()[index].begin, store_.buckets()[index].end);
}

void GradBuckets::make_grads(std::size_t index) {
  settle(index);
  const ParameterStore::Bucket& bucket = store_.buckets()[index];
  Tensor& grads = buckets_[index].grads;
  grads = Tensor::empty(exec_.memory(), {bucket.end - bucket.begin}, DType::f32, MemoryUse::gradient);
  for (std::size_t i = bucket.first_place; i < bucket.end_place; ++i) {
    const ParameterStore::Place& place = store_.places()[i];
    const std::int64_t begin = place.offset - bucket.begin, end = begin + place.count;
    const std::int64_t next = i + 1 < bucket.end_place ? store_.places()[i + 1].offset - bucket.begin : grads.numel();
    place.parameter->set_grad(grads.window(begin, place.parameter->shape()));
    if (end < next) exec_.kernels().elementwise.fill(exec_, 0.0f, grads.mut().slice(end, next));
  }
}

void GradBuckets::ready(std::size_t index, std::size_t place, const std::vector<SharedRun>& runs) {
  Bucket& bucket = buckets_[index];
  WEFT_CHECK(bucket.pending > 0, "a parameter of bucket {} became ready twice", index);
  const Tensor& grads = store_.places()[place].parameter->grad();
  const MutView flat = grads.mut().reshaped({grads.numel()});
  for (const SharedRun& run : runs)
    shared_works_.push_back(run.group->all_reduce(flat.slice(run.begin, run.end), {.keep = grads.keep_alive()}));
  if (--bucket.pending > 0) return;
  for (Work& work : shared_works_) work.wait();
  shared_works_.clear();
  send(index);
}

void GradBuckets::send(std::size_t index) {
  Bucket& bucket = buckets_[index];
  const ParameterStore::Bucket& places = store_.buckets()[index];
  const MutView all = all_grads(index);
  const Tensor& flat = store_.flat_grads();
  if (options_.zero == ZeroStage::none) {
    bucket.work = bucket.group->all_reduce(all, {ReduceOp::sum, options_.wire, flat.keep_alive()});
    return;
  }
  if (!sums_each_round()) {
    const MutView own = flat.mut().slice(places.kept.begin, places.kept.end);
    bucket.work = bucket.group->reduce_scatter(all, own, {ReduceOp::sum, options_.wire, flat.keep_alive()});
    return;
  }
  while (in_flight_.size() >= most_in_flight) settle(in_flight_.front());
  const std::int64_t count = places.kept.size();
  Tensor sum = flat.window(places.kept_at, {count});
  if (rounds_ > 1) sum = bucket.round = Tensor::empty(exec_.memory(), {count}, DType::f32, MemoryUse::gradient);
  const auto keep = std::make_shared<const std::pair<Tensor, Tensor>>(bucket.grads, sum);
  bucket.work = bucket.group->reduce_scatter(all, sum.mut(), {ReduceOp::sum, options_.wire, keep});
  for (std::size_t i = places.first_place; i < places.end_place; ++i) store_.places()[i].parameter->set_grad({});
  in_flight_.push_back(index);
}

void GradBuckets::settle(std::size_t index) {
  Bucket& bucket = buckets_[index];
  bucket.work.wait();
  bucket.work = {};
  bucket.grads = {};
  std::erase(in_flight_, index);
  if (!bucket.round.defined()) return;
  const std::int64_t at = store_.buckets()[index].kept_at;
  const MutView sum = store_.flat_grads().mut().slice(at, at + bucket.round.numel());
  exec_.kernels().elementwise.add(exec_, sum, bucket.round.view(), sum);
  bucket.round = {};
}

void GradBuckets::finish() {
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    WEFT_CHECK(buckets_[b].pending == 0, "a parameter was not declared ready");
    settle(b);
  }
}

}  // namespace weft
