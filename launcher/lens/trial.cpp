#include "launcher/lens/trial.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <tuple>

#include "core/base/clock.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

template <std::size_t n>
std::array<double, n> over_ranks(Communicator& ranks, std::array<double, n> values, ReduceOp op) {
  ranks.all_reduce(MutView(values.data(), {static_cast<std::int64_t>(n)}, DType::f64), {.op = op}).wait();
  return values;
}

// A rank that has waited for long looks up rarely and would start late: the second barrier finds all awake.
void start_together(Communicator& ranks) {
  ranks.barrier().wait();
  ranks.barrier().wait();
}

PassCost cost_of(const Tape& tape, Pass pass) {
  const CostLedger::Totals& totals = tape.ledger().totals(pass);
  return {totals.flops, totals.span, totals.span_min};
}

/// What lies between the first part's beginning and the last part's end, waiting apart.
RelayLoad relay_of(const Tape& tape, Pass pass) {
  const auto& entries = tape.ledger().entries();
  const auto relayed = [&](const CostLedger::Entry& entry) {
    return entry.pass == pass && (entry.op == "join_batch" || entry.op == "split_batch");
  };
  const auto first = std::ranges::find_if(entries, relayed);
  const auto last = std::find_if(entries.rbegin(), entries.rend(), relayed).base();
  RelayLoad relay;
  if (first == entries.end()) return relay;
  for (auto entry = first; entry != last; ++entry) {
    if (entry->pass != pass) continue;
    if (entry->op == "join_batch") ++relay.parts;
    if (relayed(*entry) || entry->op == "relay_hand_on" || entry->op == "relay_receive") continue;
    relay.work += entry->cost.flops;
    relay.span += entry->cost.depth;
  }
  relay.span /= relay.parts;
  return relay;
}

/// What came between two counts.
void add_traffic(const std::vector<SpreadGroup::Count>& before, const std::vector<SpreadGroup::Count>& after,
                 bool backward, RankLoad& load, std::vector<Traffic>& traffic) {
  for (const SpreadGroup::Count& now : after) {
    std::uint64_t started = now.started, bytes = now.bytes;
    for (const SpreadGroup::Count& then : before)
      if (then.group == now.group && then.operation == now.operation) {
        started -= then.started;
        bytes -= then.bytes;
      }
    load.starts += static_cast<double>(started);
    load.bytes += static_cast<double>(bytes);
    if (bytes > 0) traffic.push_back({now.group, now.operation, backward, bytes});
  }
}

/// The sum over ranks.
std::vector<Traffic> sum_traffic(Communicator& ranks, const std::vector<Traffic>& own) {
  nlohmann::json list = nlohmann::json::array();
  for (const Traffic& one : own) list.push_back({one.group, one.operation, one.backward, one.bytes});
  std::map<std::tuple<std::string, std::string, bool>, std::uint64_t> sums;
  for (const std::string& text : all_gather_text(ranks, list.dump()))
    for (const auto& one : nlohmann::json::parse(text)) sums[{one[0], one[1], one[2]}] += one[3].get<std::uint64_t>();
  std::vector<Traffic> all;
  for (const auto& [key, bytes] : sums) all.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), bytes});
  return all;
}

}  // namespace

SpreadGroup::SpreadGroup(const Worker& worker, const Spread& spread)
    : spread_(spread), log_(worker.log), prefix_(fmt::format("{} {}/", axis_name(spread), spread.ranks)) {
  Communicator& world = worker.mesh.world();
  const bool member = world.rank() < spread.ranks;
  const int world_rank = world.members()[static_cast<std::size_t>(world.rank())];
  Device* device = &worker.engine.device();
  if (spread.ranks > 1)
    ranks_ = world.split(member ? 0 : 1, world.rank(), prefix_ + "ranks");
  else
    ranks_ = make_self_communicator(log_, prefix_ + "ranks", world_rank, device);
  if (!member) return;
  // Groups of different spreads may have the same members: the name tells them apart.
  mesh_ = std::make_unique<Mesh>(*ranks_, sizes(), [&](const MeshGroup& group) {
    const std::string name = prefix_ + group.name;
    if (group.size > 1) return ranks_->split(group.color, ranks_->rank(), name, group.priority);
    return make_self_communicator(log_, name, world_rank, device);
  });
  if (spread.ranks > 1) measure_link(worker.engine);
}

MeshSizes SpreadGroup::sizes() const {
  MeshSizes sizes{.dp = 1};
  if (spread_.axis == Axis::dp) sizes.dp = spread_.ranks;
  if (spread_.axis == Axis::sp) sizes.sp = spread_.ranks;
  if (spread_.axis == Axis::tp) sizes.tp = spread_.ranks;
  return sizes;
}

std::vector<SpreadGroup::Count> SpreadGroup::counts() const {
  // The ends of collectives on a device's memory are seen after those who wait for them have gone on.
  constexpr double patience = 10;  // seconds
  const auto runs = [&](const ActiveCollective& one) { return one.group->name.starts_with(prefix_); };
  for (const double begun = seconds_now();
       std::ranges::any_of(log_.activity().active, runs) && seconds_now() - begun < patience;)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  std::vector<Count> counts;
  for (const CollectiveTotals& total : log_.totals()) {
    // What one rank receives another has sent.
    if (!total.group.starts_with(prefix_) || total.kind == CollectiveKind::recv || total.count == 0) continue;
    counts.push_back(
        {total.group.substr(prefix_.size()), std::string(name_of(total.kind)), total.count, total.wire_bytes});
  }
  // Barriers and results are the lens's own.
  std::erase_if(counts, [](const Count& count) { return count.group == "ranks"; });
  return counts;
}

void SpreadGroup::measure_link(Engine& engine) {
  constexpr int repeats = 15;
  constexpr std::int64_t much = 1 << 18;
  Communicator& axis = mesh_->comm(spread_.axis.value());
  const Tensor buffer = Tensor::empty(engine.memory(), {much}, DType::f32, MemoryUse::communication);
  engine.exec().kernels().elementwise.fill(engine.exec(), 0.0f, buffer.mut());
  const auto seconds = [&](std::int64_t count) {
    std::vector<double> all;
    for (int i = 0; i < repeats; ++i) {
      synchronize(engine.device());
      start_together(*ranks_);
      const double begin = seconds_now();
      axis.all_reduce(buffer.mut().slice(0, count), {.keep = buffer.keep_alive()}).wait();
      synchronize(engine.device());
      all.push_back(seconds_now() - begin);
    }
    return median(std::move(all));
  };
  const double ranks = spread_.ranks, little = seconds(1), whole = seconds(much);
  const double bytes = 2 * (ranks - 1) / ranks * 4 * static_cast<double>(much);
  link_ = {little, std::max(0.0, whole - little) / bytes};
}

Trial::Trial(Specimen& specimen, SpreadGroup& group, CommLog& log, LensShape shape)
    : specimen_(specimen), group_(group), log_(log), shape_(shape), x_(specimen.random(shape, "x")),
      dy_(specimen.random(shape, "dy")) {}

void Trial::run(Timing timing) {
  Engine& engine = specimen_.engine();
  Communicator& ranks = group_.ranks();
  const auto held = [&] {
    const MemoryStats stats = engine.memory().stats();
    return stats.live[static_cast<std::size_t>(MemoryUse::activation)];
  };
  const auto begin_pass = [&](const char* phase) {
    synchronize(engine.device());
    log_.set_phase(phase);
    start_together(ranks);
    return seconds_now();
  };
  const auto end_pass = [&](double begin) {
    synchronize(engine.device());
    return (seconds_now() - begin) * 1e3;
  };
  Tape tape;
  const std::uint64_t before = held();
  const auto at_start = group_.counts();
  double begin = begin_pass("forward");
  const Tensor y = specimen_.forward(x_, shape_, tape);
  const double forward_ms = end_pass(begin);
  activation_bytes_ = held() - before;
  forward_ = cost_of(tape, Pass::forward);
  const auto between = group_.counts();
  begin = begin_pass("backward");
  specimen_.backward(tape, y, dy_);
  const double backward_ms = end_pass(begin);
  backward_ = cost_of(tape, Pass::backward);
  ranks.barrier().wait();
  const auto at_end = group_.counts();

  const double relay_ranks = group_.spread().ranks;
  forward_load_ = {forward_.work, forward_.span, 0, 0, relay_of(tape, Pass::forward), relay_ranks};
  backward_load_ = {backward_.work, backward_.span, 0, 0, relay_of(tape, Pass::backward), relay_ranks};
  traffic_.clear();
  add_traffic(at_start, between, false, forward_load_, traffic_);
  add_traffic(between, at_end, true, backward_load_, traffic_);
  const auto slowest = over_ranks<2>(ranks, {forward_ms, backward_ms}, ReduceOp::max);
  if (timing == Timing::none) return;
  forward_ms_.push_back(slowest[0]);
  backward_ms_.push_back(slowest[1]);
}

void Trial::report(LensRow& row) {
  Communicator& ranks = group_.ranks();
  const auto sums = over_ranks<2>(ranks, {forward_.work, backward_.work}, ReduceOp::sum);
  const auto spread_out = [&](const PassCost& own, const RankLoad& load, double work, PassCost& cost, RankLoad& most) {
    const RelayLoad& relay = load.relay;
    const auto of = over_ranks<8>(
        ranks, {own.span, own.span_min, load.work, load.starts, load.bytes, relay.parts, relay.work, relay.span},
        ReduceOp::max);
    most = {of[2], of[0], of[3], of[4], {of[5], of[6], of[7]}, load.ranks};
    cost = {work, of[0], of[1]};
  };
  spread_out(forward_, forward_load_, sums[0], row.forward, row.forward_load);
  spread_out(backward_, backward_load_, sums[1], row.backward, row.backward_load);
  row.activation_bytes =
      static_cast<std::uint64_t>(over_ranks<1>(ranks, {static_cast<double>(activation_bytes_)}, ReduceOp::max)[0]);
  row.forward_ms = median(forward_ms_);
  row.backward_ms = median(backward_ms_);
  row.traffic = sum_traffic(ranks, traffic_);
}

}  // namespace weft
