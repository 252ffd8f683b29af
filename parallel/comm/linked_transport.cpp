#include "parallel/comm/linked_transport.hpp"

#include <exception>
#include <map>
#include <optional>
#include <vector>

#include "core/kernels/table.hpp"
#include "parallel/comm/communicator.hpp"
#include "parallel/comm/linked_collectives.hpp"

namespace weft {
namespace {

/// A block of device memory.
Keep make_scratch(Allocator& memory, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  return {memory.allocate(bytes, MemoryUse::communication),
          [&memory, bytes](void* data) { memory.deallocate(data, bytes, MemoryUse::communication); }};
}

/// A collective, and the mark of its end, which is there once it was launched.
struct Started {
  std::shared_ptr<Operation> operation;
  std::shared_ptr<std::shared_ptr<Event>> ended;
};

/// One group's links and queue. Its operations may outlive the transport.
class LinkedGroup : public std::enable_shared_from_this<LinkedGroup> {
 public:
  LinkedGroup(std::shared_ptr<LinkWatch> watch, std::unique_ptr<DeviceGroup> links, int rank, int size)
      : watch_(std::move(watch)), device_(watch_->device()), queue_(device_.make_queue()), links_(std::move(links)),
        begun_(device_.make_event()), collectives_(*links_, *queue_, rank, size) {}

  void start(std::shared_ptr<Operation> operation);
  /// Starts the messages that wait for each other's company.
  void flush();
  /// One more transport uses it.
  void enter() { ++users_; }
  /// The last of them waits a bounded time for what is in flight, and ends it.
  void leave();

 private:
  using Batch = std::vector<Started>;
  void launch(const Batch& batch, const std::function<void()>& enqueue);
  void enqueue_recorded(const Batch& batch, const std::function<void()>& enqueue);
  LinkRecording& recording();

  std::shared_ptr<LinkWatch> watch_;
  Device& device_;
  std::unique_ptr<ExecContext> queue_;
  std::unique_ptr<DeviceGroup> links_;  ///< goes before the queue, which may wait for what only the links' end ends
  std::unique_ptr<Event> begun_;
  LinkedCollectives collectives_;
  Batch messages_;
  std::shared_ptr<LinkRecording> recording_;
  int users_ = 0;
};

void LinkedGroup::start(std::shared_ptr<Operation> operation) {
  auto ended = std::make_shared<std::shared_ptr<Event>>();
  operation->hold = [ended, group = weak_from_this(), device = &device_] {
    if (const auto alive = group.lock(); alive && !*ended) alive->flush();
    if (*ended) (*ended)->hold(device->exec());
  };
  const Collective what = operation->what();
  if (is_message(what.kind)) {
    messages_.push_back({std::move(operation), std::move(ended)});
    // Both halves stand in it: a ring of them cannot block itself, and it travels beside what is computed next.
    if (what.kind == CollectiveKind::send_recv) flush();
    return;
  }
  flush();
  Keep scratch = make_scratch(device_.memory(), collectives_.scratch_bytes(what));
  auto* data = const_cast<void*>(scratch.get());
  if (scratch) operation->keep_too(std::move(scratch));
  launch({{std::move(operation), std::move(ended)}}, [&] { collectives_.enqueue(what, data); });
}

void LinkedGroup::flush() {
  if (messages_.empty()) return;
  const Batch batch = std::exchange(messages_, {});
  std::vector<LinkMessage> messages;
  for (const Started& started : batch) {
    const Collective& what = started.operation->what();
    if (what.input) messages.push_back({what.peer, what.input, {}});
    if (what.output) messages.push_back({what.kind == CollectiveKind::recv ? what.peer : what.source, {}, what.output});
  }
  launch(batch, [&] { links_->exchange(*queue_, messages); });
}

// They begin and end together. What they use was given to the computing queue before, their scratch included.
void LinkedGroup::launch(const Batch& batch, const std::function<void()>& enqueue) {
  try {
    begun_->record(device_.exec());
    begun_->hold(*queue_);
    const bool recorded = device_.recording() != 0;
    if (recorded)
      enqueue_recorded(batch, enqueue);
    else
      enqueue();
    const std::shared_ptr<Event> ended = watch_->take_event();
    ended->record(*queue_);
    for (const Started& started : batch) {
      *started.ended = ended;
      if (!recorded) watch_->follow(*links_, started.operation, ended);
    }
  } catch (...) {
    for (const Started& started : batch) started.operation->finish(std::current_exception());
  }
}

void LinkedGroup::enqueue_recorded(const Batch& batch, const std::function<void()>& enqueue) {
  LinkRecording& recorded = recording();
  const auto& count = queue_->kernels().collective.count;
  for (const Started& started : batch) {
    started.operation->become_recorded();
    recorded.add(started.operation);
    count(*queue_, recorded.begun());
  }
  enqueue();
  for (std::size_t i = 0; i < batch.size(); ++i) count(*queue_, recorded.ended());
}

LinkRecording& LinkedGroup::recording() {
  if (!recording_ || recording_->number() != device_.recording()) {
    recording_ = std::make_shared<LinkRecording>(device_.host_memory(), device_.recording());
    watch_->follow(*links_, recording_);
  }
  return *recording_;
}

void LinkedGroup::leave() {
  flush();
  if (--users_ > 0) return;
  // Where this rank fails alone, what is in flight never ends.
  constexpr double patience = 10;  // seconds
  watch_->leave(*links_, std::uncaught_exceptions() > 0 ? 0 : patience);
}

/// The groups that transports of one device have joined. Those of the same ranks and priority share one: each takes memory and
/// time, and several of a mesh's groups have the same ranks where its other axes have one.
class LinkedGroups {
 public:
  LinkedGroups(std::shared_ptr<LinkWatch> watch, LinkOptions options)
      : watch_(std::move(watch)), options_(std::move(options)) {}
  Device& device() const { return watch_->device(); }
  /// Collective over `group`.
  std::shared_ptr<LinkedGroup> join(Communicator& group);

 private:
  std::shared_ptr<LinkWatch> watch_;
  LinkOptions options_;
  std::map<std::pair<std::vector<int>, Priority>, std::weak_ptr<LinkedGroup>> joined_;
};

std::shared_ptr<LinkedGroup> LinkedGroups::join(Communicator& group) {
  std::weak_ptr<LinkedGroup>& joined = joined_[{group.members(), group.priority()}];
  if (auto there = joined.lock()) return there;
  DeviceLinks& links = device().links();
  LinkId id{};
  if (group.rank() == 0) id = links.make_id();
  group.broadcast(MutView(id.data(), {static_cast<std::int64_t>(id.size())}, DType::u8), 0).wait();
  auto members = links.join(id, {group.rank(), group.size(), group.name(), options_.host}, options_.timeout);
  auto made = std::make_shared<LinkedGroup>(watch_, std::move(members), group.rank(), group.size());
  joined = made;
  return made;
}

class LinkedTransport final : public Transport {
 public:
  LinkedTransport(std::unique_ptr<Transport> inner, std::shared_ptr<LinkedGroups> groups)
      : inner_(std::move(inner)), groups_(std::move(groups)) {}
  ~LinkedTransport() override {
    if (group_) group_->leave();
  }
  int rank() const override { return inner_->rank(); }
  const std::vector<int>& members() const override { return inner_->members(); }
  bool serves(DeviceId device) const override {
    return inner_->serves(device) || device == groups_->device().exec().device();
  }
  bool recordable() const override { return true; }
  void connect(Communicator& group) override {
    group_ = groups_->join(group);
    group_->enter();
  }
  void start(std::shared_ptr<Operation> operation) override;
  int free_context() const override { return inner_->free_context(); }
  std::unique_ptr<Transport> subgroup(const std::vector<int>& members, int context, const std::string& name) override {
    return std::make_unique<LinkedTransport>(inner_->subgroup(members, context, name), groups_);
  }

 private:
  std::unique_ptr<Transport> inner_;
  std::shared_ptr<LinkedGroups> groups_;
  std::shared_ptr<LinkedGroup> group_;
};

void LinkedTransport::start(std::shared_ptr<Operation> operation) {
  const Collective& what = operation->what();
  const auto on_host = [](const View& view) { return view.device.kind == DeviceKind::cpu; };
  if (on_host(what.input) && on_host(what.output)) return inner_->start(std::move(operation));
  WEFT_CHECK(group_, "the group is not connected");
  group_->start(std::move(operation));
}

}  // namespace

std::unique_ptr<Transport> make_linked_transport(std::unique_ptr<Transport> inner, std::shared_ptr<LinkWatch> watch,
                                                 LinkOptions options) {
  return std::make_unique<LinkedTransport>(std::move(inner),
                                           std::make_shared<LinkedGroups>(std::move(watch), std::move(options)));
}

}  // namespace weft
