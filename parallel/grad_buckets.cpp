#include "parallel/grad_buckets.hpp"

#include "parallel/comm/agreement.hpp"

namespace weft {

GradBuckets::GradBuckets(ParameterStore& store, Communicator& group, BucketOptions options)
    : store_(store), group_(group), options_(options) {
  WEFT_CHECK(store.flat_grads().defined(), "gradients are not allocated");
  std::string order;
  std::int64_t begin = 0;
  int parameters = 0;
  const auto& places = store.places();
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::int64_t end = i + 1 < places.size() ? places[i + 1].offset : store.flat_grads().numel();
    places[i].parameter->on_grad_ready = [this, bucket = buckets_.size()](Parameter&) { ready(bucket); };
    order += fmt::format("bucket {}: {} {}\n", buckets_.size(), places[i].parameter->name(),
                         to_string(places[i].parameter->slice().global_shape));
    ++parameters;
    if (static_cast<std::size_t>(end - begin) * sizeof(float) >= options.bytes || i + 1 == places.size()) {
      buckets_.push_back({begin, end, parameters, parameters, {}});
      begin = end;
      parameters = 0;
    }
  }
  check_same_on_all_ranks(group, "gradient buckets", order);
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
  for (Parameter* parameter : store_.all()) parameter->on_grad_ready = nullptr;
}

void GradBuckets::begin_step() {
  for (Bucket& bucket : buckets_) {
    WEFT_CHECK(bucket.work.done(), "a gradient bucket of the last step is still in flight");
    bucket.pending = bucket.parameters;
  }
}

void GradBuckets::ready(std::size_t index) {
  Bucket& bucket = buckets_[index];
  WEFT_CHECK(bucket.pending > 0, "a parameter of bucket {} became ready twice", index);
  if (--bucket.pending > 0) return;
  const MutView grads = store_.flat_grads().mut().slice(bucket.begin, bucket.end);
  bucket.work = group_.all_reduce(grads, {ReduceOp::sum, options_.wire, store_.flat_grads().keep_alive()});
}

void GradBuckets::finish() {
  for (Bucket& bucket : buckets_) {
    WEFT_CHECK(bucket.pending == 0, "a parameter was not declared ready");
    bucket.work.wait();
    bucket.work = {};
  }
}

}  // namespace weft
