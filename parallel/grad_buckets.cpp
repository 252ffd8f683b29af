#include "parallel/grad_buckets.hpp"

#include "parallel/comm/agreement.hpp"

namespace weft {
namespace {

AxisSet summed_axes(const Slice& slice) {
  AxisSet axes;
  for (std::size_t axis = 0; axis < axis_count; ++axis)
    axes.set(axis, slice.placement[axis] == Placement::replicated_partial);
  return axes;
}

// Whether the ranks of a model's copy that come before this one have the whole parameter too.
bool counted_before(const Slice& slice, const Mesh& mesh) {
  for (const Axis axis : {Axis::pp, Axis::tp})
    if (slice.placement[static_cast<std::size_t>(axis)] != Placement::sharded && mesh.coordinate(axis) > 0) return true;
  return false;
}

}  // namespace

std::vector<Range> counted_gradients(const ParameterStore& store, const Mesh& mesh) {
  std::vector<Range> counted;
  const auto add = [&](std::int64_t begin, std::int64_t end) {
    if (!counted.empty() && counted.back().end == begin)
      counted.back().end = end;
    else if (begin < end)
      counted.push_back({begin, end});
  };
  const auto& places = store.places();
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Slice& slice = places[i].parameter->slice();
    if (counted_before(slice, mesh)) continue;
    std::int64_t at = places[i].offset;
    for (const Box& box : slice.boxes) {
      if (box.copy == 0) add(at, at + box.size.numel());
      at += box.size.numel();
    }
    // What fills up to the next parameter is zero, and joins it to this one.
    const std::int64_t next = i + 1 < places.size() ? places[i + 1].offset : store.flat_grads().numel();
    if (!counted.empty() && counted.back().end == at) add(at, next);
  }
  return counted;
}

GradBuckets::GradBuckets(ParameterStore& store, Mesh& mesh, BucketOptions options) : store_(store), options_(options) {
  WEFT_CHECK(store.flat_grads().defined(), "gradients are not allocated");
  std::string order;
  std::int64_t begin = 0;
  int parameters = 0;
  const auto& places = store.places();
  for (std::size_t i = 0; i < places.size(); ++i) {
    const bool last = i + 1 == places.size();
    const std::int64_t end = last ? store.flat_grads().numel() : places[i + 1].offset;
    const AxisSet axes = summed_axes(places[i].parameter->slice());
    places[i].parameter->on_grad_ready = [this, bucket = buckets_.size(),
                                          runs = shared_runs(places[i], mesh)](Parameter&) { ready(bucket, runs); };
    order += fmt::format("bucket {} over {}: {} {}\n", buckets_.size(), axes.to_string(), places[i].parameter->name(),
                         to_string(places[i].parameter->slice().global_shape));
    ++parameters;
    if (static_cast<std::size_t>(end - begin) * sizeof(float) >= options.bytes || last ||
        summed_axes(places[i + 1].parameter->slice()) != axes) {
      buckets_.push_back({begin, end, &mesh.comm(axes), parameters, parameters, {}});
      begin = end;
      parameters = 0;
    }
  }
  // Ranks along tp cut at other places where shares are uneven, but those whose gradients meet cut alike.
  check_same_on_all_ranks(mesh.comm({Axis::dp, Axis::sp}), "gradient buckets", order);
}

std::vector<GradBuckets::SharedRun> GradBuckets::shared_runs(const ParameterStore::Place& place, Mesh& mesh) {
  std::vector<SharedRun> runs;
  std::int64_t at = place.offset;
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
  for (Parameter* parameter : store_.all()) parameter->on_grad_ready = nullptr;
}

void GradBuckets::begin_step() {
  for (Bucket& bucket : buckets_) {
    WEFT_CHECK(bucket.work.done(), "a gradient bucket of the last step is still in flight");
    bucket.pending = bucket.parameters;
  }
}

void GradBuckets::ready(std::size_t index, const std::vector<SharedRun>& runs) {
  Bucket& bucket = buckets_[index];
  WEFT_CHECK(bucket.pending > 0, "a parameter of bucket {} became ready twice", index);
  const Tensor& grads = store_.flat_grads();
  for (const SharedRun& run : runs)
    shared_works_.push_back(run.group->all_reduce(grads.mut().slice(run.begin, run.end), {.keep = grads.keep_alive()}));
  if (--bucket.pending > 0) return;
  for (Work& work : shared_works_) work.wait();
  shared_works_.clear();
  bucket.work = bucket.group->all_reduce(grads.mut().slice(bucket.begin, bucket.end),
                                         {ReduceOp::sum, options_.wire, grads.keep_alive()});
}

void GradBuckets::finish() {
  for (Bucket& bucket : buckets_) {
    WEFT_CHECK(bucket.pending == 0, "a parameter was not declared ready");
    bucket.work.wait();
    bucket.work = {};
  }
}

}  // namespace weft
