#include "parallel/comm/test_transport.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/clock.hpp"

namespace weft {
namespace {

/// Calls back at given times, from one thread that sleeps in between.
class Timer {
 public:
  Timer() : thread_([this] { run(); }) {}
  ~Timer() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }
  void at(double time, std::function<void()> call) {
    {
      const std::lock_guard lock(mutex_);
      calls_.emplace(time, std::move(call));
    }
    wake_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (calls_.empty()) {
        wake_.wait(lock);
        continue;
      }
      const double remaining = calls_.begin()->first - seconds_now();
      if (remaining > 0) {
        wake_.wait_for(lock, std::chrono::duration<double>(remaining));
        continue;
      }
      const auto call = std::move(calls_.extract(calls_.begin()).mapped());
      lock.unlock();
      call();
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::multimap<double, std::function<void()>> calls_;
  bool stopping_ = false;
  std::thread thread_;
};

using Finish = std::function<void()>;

/// What all groups of one world share.
struct TestState {
  explicit TestState(const TestPlan& plan_) : plan(plan_), matched(plan_.faults.size()) {}

  TestPlan plan;
  std::mutex mutex;
  std::vector<std::int64_t> matched;                ///< operations that a rule has seen
  double link_free = 0;                             ///< seconds_now() when the link has passed all bytes so far
  double urgent_free = 0;                           ///< the same of the urgent ones
  std::map<std::string, std::vector<Finish>> held;  ///< by group: ends that wait for a later one
  std::vector<std::shared_ptr<Operation>> hanging;
  Timer timer;

  /// The rules that break this operation now.
  std::vector<FaultRule> match(const Collective& what, const std::string& group, int rank);
  /// seconds_now() when the modelled network has passed it.
  double arrival(const Collective& what, int size, double now);
};

std::vector<FaultRule> TestState::match(const Collective& what, const std::string& group, int rank) {
  std::vector<FaultRule> rules;
  const std::lock_guard lock(mutex);
  for (std::size_t i = 0; i < plan.faults.size(); ++i) {
    const FaultRule& rule = plan.faults[i];
    if ((rule.kind && *rule.kind != what.kind) || (!rule.group.empty() && rule.group != group)) continue;
    const std::int64_t seen = matched[i]++;
    const bool chosen = seen >= rule.first && seen - rule.first < rule.count;
    if (chosen && (rule.rank < 0 || rule.rank == rank)) rules.push_back(rule);
  }
  return rules;
}

double TestState::arrival(const Collective& what, int size, double now) {
  const TestNetwork& network = plan.network;
  double passing = 0;
  if (network.bytes_per_second > 0) passing = static_cast<double>(wire_bytes(what, size)) / network.bytes_per_second;
  const std::lock_guard lock(mutex);
  const bool urgent = what.priority == Priority::urgent;
  link_free = std::max(now, link_free) + passing;
  if (urgent) urgent_free = std::max(now, urgent_free) + passing;
  return (urgent ? urgent_free : link_free) + network.latency_seconds;
}

template <class T>
void scale_typed(MutView x, double factor) {
  auto* data = static_cast<T*>(x.data);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    if constexpr (std::is_same_v<T, bf16>)
      data[i] = bf16(static_cast<float>(factor) * static_cast<float>(data[i]));
    else
      data[i] = static_cast<T>(factor * static_cast<double>(data[i]));
  }
}

void scale(MutView x, double factor) {
  switch (x.dtype) {
    case DType::f32: return scale_typed<float>(x, factor);
    case DType::bf16: return scale_typed<bf16>(x, factor);
    case DType::f64: return scale_typed<double>(x, factor);
    case DType::i32: return scale_typed<std::int32_t>(x, factor);
    case DType::i64: return scale_typed<std::int64_t>(x, factor);
    case DType::u8: return scale_typed<std::uint8_t>(x, factor);
    case DType::u16: return scale_typed<std::uint16_t>(x, factor);
  }
}

void damage(const Collective& what, const std::vector<FaultRule>& rules) {
  if (!what.output) return;
  for (const FaultRule& rule : rules) {
    if (rule.fault == Fault::scale) scale(what.output, rule.value);
    if (rule.fault == Fault::corrupt) {
      constexpr unsigned char high_exponent_bit = 0x40;
      static_cast<unsigned char*>(what.output.data)[what.output.bytes() - 1] ^= high_exponent_bit;
    }
  }
}

class TestTransport final : public Transport {
 public:
  TestTransport(std::unique_ptr<Transport> inner, std::shared_ptr<TestState> state, std::string name)
      : inner_(std::move(inner)), state_(std::move(state)), name_(std::move(name)) {}

  int rank() const override { return inner_->rank(); }
  const std::vector<int>& members() const override { return inner_->members(); }
  bool serves(DeviceId device) const override { return inner_->serves(device); }
  int free_context() const override { return inner_->free_context(); }
  std::unique_ptr<Transport> subgroup(const std::vector<int>& group, int context, const std::string& name) override {
    return std::make_unique<TestTransport>(inner_->subgroup(group, context, name), state_, name);
  }
  void start(std::shared_ptr<Operation> operation) override;

 private:
  /// Ends `operation` at the time that network and rules give it.
  static void end(const std::shared_ptr<TestState>& state, const std::string& group, int size,
                  const std::vector<FaultRule>& rules, const std::shared_ptr<Operation>& operation,
                  const std::exception_ptr& error);

  std::unique_ptr<Transport> inner_;
  std::shared_ptr<TestState> state_;
  std::string name_;
};

void TestTransport::start(std::shared_ptr<Operation> operation) {
  const int world_rank = members()[static_cast<std::size_t>(rank())];
  const auto rules = state_->match(operation->what(), name_, world_rank);
  for (const FaultRule& rule : rules) {
    switch (rule.fault) {
      case Fault::fail:
        operation->finish(std::make_exception_ptr(
            Error(fmt::format("{} of {} failed as the test plan says", name_of(operation->what().kind), name_))));
        return;
      case Fault::skip: operation->finish(); return;
      case Fault::hang: {
        const std::lock_guard lock(state_->mutex);
        state_->hanging.push_back(std::move(operation));
        return;
      }
      default: break;
    }
  }
  auto inner = std::make_shared<Operation>(*operation, operation->what(), operation->keep());
  operation->on_wait = [weak = std::weak_ptr(inner)] {
    if (const auto there = weak.lock()) there->expect();
  };
  inner->on_finish = [state = state_, name = name_, size = static_cast<int>(members().size()), rules,
                      operation](const std::exception_ptr& error) { end(state, name, size, rules, operation, error); };
  inner_->start(std::move(inner));
}

void TestTransport::end(const std::shared_ptr<TestState>& state, const std::string& group, int size,
                        const std::vector<FaultRule>& rules, const std::shared_ptr<Operation>& operation,
                        const std::exception_ptr& error) {
  damage(operation->what(), rules);
  const double now = seconds_now();
  double time = state->arrival(operation->what(), size, now);
  bool reorder = false;
  for (const FaultRule& rule : rules) {
    if (rule.fault == Fault::delay) time += rule.value;
    if (rule.fault == Fault::reorder) reorder = true;
  }
  const Finish finish = [operation, error, once = std::make_shared<std::atomic_flag>()] {
    if (!once->test_and_set()) operation->finish(error);
  };
  if (reorder) {
    constexpr double longest_hold_seconds = 1;
    {
      const std::lock_guard lock(state->mutex);
      state->held[group].push_back(finish);
    }
    state->timer.at(now + longest_hold_seconds, finish);
    return;
  }
  std::vector<Finish> released;
  {
    const std::lock_guard lock(state->mutex);
    released = std::exchange(state->held[group], {});
  }
  const auto finish_all = [finish, released] {
    finish();
    for (const auto& held : released) held();
  };
  if (time > now)
    state->timer.at(time, finish_all);
  else
    finish_all();
}

double number_of(std::string_view text, std::string_view item) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail_user("test plan: '{}' is not a number in '{}'", text, item);
  return value;
}

std::vector<std::string_view> split_at(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto length = text.find(separator);
    parts.push_back(text.substr(0, length));
    if (length == std::string_view::npos) return parts;
    text.remove_prefix(length + 1);
  }
}

FaultRule parse_rule(std::string_view item) {
  constexpr std::pair<std::string_view, Fault> faults[] = {
      {"fail", Fault::fail},   {"hang", Fault::hang},   {"corrupt", Fault::corrupt}, {"skip", Fault::skip},
      {"scale", Fault::scale}, {"delay", Fault::delay}, {"reorder", Fault::reorder}};
  const auto fields = split_at(item, ':');
  if (fields.size() != 3) fail_user("test plan: expected OPERATION:GROUP:SETTINGS, found '{}'", item);
  FaultRule rule;
  if (fields[0] != "any") {
    for (std::size_t kind = 0; kind < collective_kind_count; ++kind)
      if (name_of(static_cast<CollectiveKind>(kind)) == fields[0]) rule.kind = static_cast<CollectiveKind>(kind);
    if (!rule.kind) fail_user("test plan: no operation is called '{}'", fields[0]);
  }
  if (fields[1] != "any") rule.group = fields[1];
  bool has_fault = false;
  for (const auto setting : split_at(fields[2], ',')) {
    const auto equals = setting.find('=');
    const auto key = setting.substr(0, equals);
    const bool has_value = equals != std::string_view::npos;
    const double value = has_value ? number_of(setting.substr(equals + 1), item) : 0;
    const auto fault =
        std::find_if(std::begin(faults), std::end(faults), [&](const auto& f) { return f.first == key; });
    if (fault != std::end(faults)) {
      rule.fault = fault->second;
      rule.value = value;
      has_fault = true;
    } else if (key == "first" && has_value) {
      rule.first = static_cast<std::int64_t>(value);
    } else if (key == "count" && has_value) {
      rule.count = static_cast<std::int64_t>(value);
    } else if (key == "rank" && has_value) {
      rule.rank = static_cast<int>(value);
    } else {
      fail_user("test plan: unknown setting '{}' in '{}'", setting, item);
    }
  }
  if (!has_fault) fail_user("test plan: '{}' says no fault", item);
  return rule;
}

}  // namespace

TestPlan parse_test_plan(std::string_view text) {
  TestPlan plan;
  for (const auto item : split_at(text, ';')) {
    if (item.empty()) continue;
    if (item.find(':') != std::string_view::npos) {
      plan.faults.push_back(parse_rule(item));
      continue;
    }
    for (const auto setting : split_at(item, ',')) {
      const auto equals = std::min(setting.find('='), setting.size());
      const auto key = setting.substr(0, equals);
      const auto value = setting.substr(std::min(equals + 1, setting.size()));
      if (key == "bandwidth")
        plan.network.bytes_per_second = number_of(value, item);
      else if (key == "latency")
        plan.network.latency_seconds = number_of(value, item);
      else
        fail_user("test plan: unknown setting '{}'", setting);
    }
  }
  return plan;
}

std::unique_ptr<Transport> make_test_transport(std::unique_ptr<Transport> inner, const TestPlan& plan,
                                               std::string name) {
  return std::make_unique<TestTransport>(std::move(inner), std::make_shared<TestState>(plan), std::move(name));
}

}  // namespace weft
