#include "parallel/comm/communicator.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/kernels/table.hpp"
#include "parallel/comm/reduce_kernels.hpp"

namespace weft {
namespace {

constexpr std::size_t small_bytes = 64 << 10;
constexpr int highest_tag = 63;

bool overlap(View a, View b) {
  const auto* a_begin = static_cast<const char*>(a.data);
  const auto* b_begin = static_cast<const char*>(b.data);
  return a_begin < b_begin + b.bytes() && b_begin < a_begin + a.bytes();
}

/// `part` lies outside `whole` or exactly at this rank's place in it.
bool apart_or_in_place(View whole, View part, int rank) {
  return !overlap(whole, part) ||
         part.data == static_cast<const char*>(whole.data) + static_cast<std::size_t>(rank) * part.bytes();
}

}  // namespace

Communicator::Communicator(std::unique_ptr<Transport> transport, CommLog& log, std::string name, Priority priority)
    : transport_(std::move(transport)), log_(log), name_(std::move(name)), priority_(priority),
      rank_(transport_->rank()), size_(static_cast<int>(transport_->members().size())), members_(transport_->members()),
      record_(std::make_shared<GroupRecord>(name_, members_)) {}

Communicator::Communicator(int world_rank, CommLog& log, std::string name, Device* device)
    : log_(log), name_(std::move(name)), priority_(Priority::urgent), members_({world_rank}), device_(device) {}

Communicator::~Communicator() = default;

bool Communicator::recordable() const { return !transport_ || transport_->recordable(); }

void Communicator::check(View view, const char* what) const {
  WEFT_CHECK(view.contiguous(), "{} of {} in group {} is not contiguous", what, to_string(view.shape), name_);
  WEFT_CHECK(view.data != nullptr || view.numel() == 0, "{} in group {} has no memory", what, name_);
  const bool reached = transport_ ? transport_->serves(view.device)
                                  : view.device == DeviceId{} || (device_ && view.device == device_->exec().device());
  WEFT_CHECK(reached, "group {} cannot reach memory on {}", name_, name_of(view.device.kind));
}

void Communicator::check_together(View input, View output, const char* what) const {
  check(input, what);
  check(output, what);
  WEFT_CHECK(input.device == output.device, "{} in group {} from memory on {} into memory on {}", what, name_,
             name_of(input.device.kind), name_of(output.device.kind));
}

void Communicator::copy_alone(View input, MutView output) {
  if (input.data == output.data) return;
  if (output.device == DeviceId{})
    std::memcpy(output.data, input.data, output.bytes());
  else
    device_->exec().kernels().transfer.copy(device_->exec(), input, output);
}

void Communicator::check_peer(int peer, const char* what) const {
  WEFT_CHECK(0 <= peer && peer < size_, "{} {} of group {}, which has {} ranks", what, peer, name_, size_);
}

Work Communicator::start(Collective what, Keep keep) {
  const std::size_t bytes = std::max(what.input.bytes(), what.output.bytes());
  what.priority = bytes <= small_bytes ? Priority::urgent : priority_;
  const bool receives = what.kind == CollectiveKind::recv || what.kind == CollectiveKind::send_recv;
  if (is_message(what.kind)) {
    const int source = what.kind == CollectiveKind::recv ? what.peer : what.source;
    if (receives) what.sequence = received_[{source, what.tag}]++;
    if (what.kind != CollectiveKind::recv) what.sequence = sent_[{what.peer, what.tag}]++;
  } else {
    what.sequence = next_sequence_++;
  }
  auto operation = std::make_shared<Operation>(what, std::move(keep));
  log_.begin(*operation, record_, weft::wire_bytes(what, size_));
  transport_->start(operation);
  return Work(std::move(operation));
}

Work Communicator::all_reduce(MutView x, ReduceOptions options) {
  check(x, "all_reduce's tensor");
  WEFT_CHECK(can_reduce(x.dtype), "{} cannot be reduced", name_of(x.dtype));
  check_wire(x.dtype, options);
  if (!transport_ || x.numel() == 0) return {};
  return start(
      {.kind = CollectiveKind::all_reduce, .reduce = options.op, .wire = options.wire, .input = x, .output = x},
      std::move(options.keep));
}

Work Communicator::all_gather(View input, MutView output, Keep keep) {
  check_together(input, output, "all_gather");
  WEFT_CHECK(input.dtype == output.dtype, "{} into {}", name_of(input.dtype), name_of(output.dtype));
  WEFT_CHECK(output.numel() == input.numel() * size_, "all_gather of {} elements from {} ranks into {}", input.numel(),
             size_, output.numel());
  if (input.numel() == 0) return {};
  WEFT_CHECK(apart_or_in_place(output, input, rank_), "all_gather's input overlaps its output at a wrong place");
  if (!transport_) {
    copy_alone(input, output);
    return {};
  }
  return start({.kind = CollectiveKind::all_gather, .input = input, .output = output}, std::move(keep));
}

Work Communicator::reduce_scatter(View input, MutView output, ReduceOptions options) {
  check_together(input, output, "reduce_scatter");
  WEFT_CHECK(input.dtype == output.dtype, "{} into {}", name_of(input.dtype), name_of(output.dtype));
  WEFT_CHECK(can_reduce(input.dtype), "{} cannot be reduced", name_of(input.dtype));
  check_wire(input.dtype, options);
  WEFT_CHECK(input.numel() == output.numel() * size_, "reduce_scatter of {} elements over {} ranks into {}",
             input.numel(), size_, output.numel());
  if (input.numel() == 0) return {};
  WEFT_CHECK(apart_or_in_place(input, output, rank_), "reduce_scatter's output overlaps its input at a wrong place");
  if (!transport_) {
    copy_alone(input, output);
    return {};
  }
  return start({.kind = CollectiveKind::reduce_scatter,
                .reduce = options.op,
                .wire = options.wire,
                .input = input,
                .output = output},
               std::move(options.keep));
}

Work Communicator::broadcast(MutView x, int root, Keep keep) {
  check(x, "broadcast's tensor");
  check_peer(root, "root");
  if (!transport_ || x.numel() == 0) return {};
  return start({.kind = CollectiveKind::broadcast, .peer = root, .input = x, .output = x}, std::move(keep));
}

Work Communicator::all_to_all(View input, MutView output, Keep keep) {
  check_together(input, output, "all_to_all");
  WEFT_CHECK(input.dtype == output.dtype && input.numel() == output.numel(), "all_to_all of {} {} into {} {}",
             input.numel(), name_of(input.dtype), output.numel(), name_of(output.dtype));
  WEFT_CHECK(input.numel() % size_ == 0, "all_to_all of {} elements over {} ranks", input.numel(), size_);
  if (input.numel() == 0) return {};
  WEFT_CHECK(!overlap(input, output), "all_to_all does not work in place");
  if (!transport_) {
    copy_alone(input, output);
    return {};
  }
  return start({.kind = CollectiveKind::all_to_all, .input = input, .output = output}, std::move(keep));
}

void Communicator::check_message(View x, int peer, int tag, const char* what) const {
  check(x, what);
  check_peer(peer, "the other side,");
  WEFT_CHECK(peer != rank_, "rank {} of group {} exchanges a message with itself", rank_, name_);
  WEFT_CHECK(0 <= tag && tag <= highest_tag, "tag {}", tag);
}

Work Communicator::send(View x, int destination, int tag, Keep keep) {
  check_message(x, destination, tag, "send's tensor");
  if (x.numel() == 0) return {};
  return start({.kind = CollectiveKind::send, .peer = destination, .tag = tag, .input = x}, std::move(keep));
}

Work Communicator::recv(MutView x, int source, int tag, Keep keep) {
  check_message(x, source, tag, "recv's tensor");
  if (x.numel() == 0) return {};
  return start({.kind = CollectiveKind::recv, .peer = source, .tag = tag, .output = x}, std::move(keep));
}

Work Communicator::send_recv(View x, int destination, MutView y, int source, int tag, Keep keep) {
  check_message(x, destination, tag, "send_recv's sent tensor");
  check_message(y, source, tag, "send_recv's received tensor");
  check_together(x, y, "send_recv");
  if (x.numel() == 0) return recv(y, source, tag, std::move(keep));
  if (y.numel() == 0) return send(x, destination, tag, std::move(keep));
  WEFT_CHECK(!overlap(x, y), "send_recv does not work in place");
  return start(
      {.kind = CollectiveKind::send_recv, .peer = destination, .source = source, .tag = tag, .input = x, .output = y},
      std::move(keep));
}

Work Communicator::exclusive_scan(View input, MutView output, ReduceOptions options) {
  check_together(input, output, "exclusive_scan");
  WEFT_CHECK(input.dtype == output.dtype && input.numel() == output.numel(), "exclusive_scan of {} {} into {} {}",
             input.numel(), name_of(input.dtype), output.numel(), name_of(output.dtype));
  WEFT_CHECK(can_reduce(input.dtype), "{} cannot be reduced", name_of(input.dtype));
  WEFT_CHECK(options.wire == Wire::native, "exclusive_scan travels in its own dtype");
  if (input.numel() == 0) return {};
  WEFT_CHECK(!overlap(input, output), "exclusive_scan does not work in place");
  if (!transport_) {
    if (output.device == DeviceId{})
      fill_identity(options.op, output);
    else
      fill_identity(device_->exec(), options.op, output);
    return {};
  }
  return start({.kind = CollectiveKind::exclusive_scan, .reduce = options.op, .input = input, .output = output},
               std::move(options.keep));
}

Work Communicator::barrier() {
  if (!transport_) return {};
  return start({.kind = CollectiveKind::barrier}, nullptr);
}

void Communicator::check_wire(DType dtype, const ReduceOptions& options) const {
  WEFT_CHECK(options.wire == Wire::native || (dtype == DType::f32 && options.op == ReduceOp::sum),
             "the bf16 wire carries f32 sums, not {} {}", name_of(dtype), name_of(options.op));
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, std::string name, Priority priority,
                                                  const DeviceReach& reach) {
  if (!transport_) return make_self_communicator(log_, std::move(name), members_.front(), reach.device);
  struct Choice {
    std::int32_t color, key, context;
  };
  static_assert(sizeof(Choice) == 3 * sizeof(std::int32_t));
  std::vector<Choice> choices(static_cast<std::size_t>(size_));
  auto& own = choices[static_cast<std::size_t>(rank_)];
  own = {color, key, transport_->free_context()};
  all_gather(View(&own, {3}, DType::i32), MutView(choices.data(), {size_, 3}, DType::i32)).wait();

  int context = 0;
  std::vector<std::pair<int, int>> ordered;
  for (int member = 0; member < size_; ++member) {
    const auto& choice = choices[static_cast<std::size_t>(member)];
    context = std::max(context, choice.context);
    if (choice.color == color) ordered.emplace_back(choice.key, member);
  }
  std::sort(ordered.begin(), ordered.end());
  std::vector<int> group;
  for (const auto& [order, member] : ordered) group.push_back(member);
  if (group.size() == 1)
    return make_self_communicator(log_, std::move(name), members_[static_cast<std::size_t>(rank_)], reach.device);
  auto transport = transport_->subgroup(group, context, name);
  if (reach.extend) transport = reach.extend(std::move(transport));
  auto made = std::make_unique<Communicator>(std::move(transport), log_, std::move(name), priority);
  made->device_ = reach.device;
  made->transport_->connect(*made);
  return made;
}

std::unique_ptr<Communicator> make_self_communicator(CommLog& log, std::string name, int world_rank, Device* device) {
  return std::make_unique<Communicator>(world_rank, log, std::move(name), device);
}

}  // namespace weft
