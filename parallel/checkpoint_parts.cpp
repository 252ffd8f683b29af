#include "parallel/checkpoint_parts.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

using nlohmann::json;

std::string join(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape.sizes()) text += (text.empty() ? "" : ",") + std::to_string(size);
  return text;
}

/// Who holds which parts, as all ranks know it.
struct Holding {
  std::string key;
  std::size_t bytes = 0;
  std::vector<int> ranks;
};

std::vector<Holding> gather_holdings(Communicator& world, const std::vector<StoredPart>& parts) {
  json own = json::array();
  for (const StoredPart& part : parts) own.push_back({part.key(), part.data.bytes()});
  std::vector<Holding> all;
  std::unordered_map<std::string, std::size_t> places;
  const std::vector<std::string> texts = all_gather_text(world, own.dump());
  for (std::size_t rank = 0; rank < texts.size(); ++rank)
    for (const json& part : json::parse(texts[rank])) {
      const auto key = part.at(0).get<std::string>();
      const auto [place, made] = places.try_emplace(key, all.size());
      if (made) all.push_back({key, part.at(1).get<std::size_t>(), {}});
      all[place->second].ranks.push_back(static_cast<int>(rank));
    }
  return all;
}

}  // namespace

std::string StoredPart::key() const {
  if (box.size == tensor->slice.global_shape) return tensor->name;
  return fmt::format("{}@{}+{}", tensor->name, join(box.begin), join(box.size));
}

std::vector<StoredPart> parts_of(const std::vector<StoredTensor>& tensors) {
  std::vector<StoredPart> parts;
  for (const StoredTensor& tensor : tensors) {
    std::int64_t at = 0;
    for (const Box& box : tensor.slice.kept_boxes()) {
      const std::int64_t count = box.size.numel();
      // Ranks that hold the same box may cut it at different places: the first of them writes all of it.
      if (box.copy == 0) parts.push_back({&tensor, box, View(tensor.data).slice(at, at + count)});
      at += count;
    }
  }
  return parts;
}

std::vector<StoredTensor> stored_tensors(const CheckpointTarget& target) {
  std::vector<StoredTensor> all;
  for (const ParameterStore::Place& place : target.parameters.places()) {
    const auto add = [&](std::string name, const ParameterStore::Stored& stored) {
      all.push_back({std::move(name), stored.slice, stored.data.mut()});
    };
    const std::string& name = place.parameter->name();
    add(name, target.parameters.stored_value(place));
    if (!target.optimizer) continue;
    for (const Optimizer::Moment& moment : target.optimizer->moments())
      add(fmt::format("optimizer.{}/{}", moment.name, name), target.parameters.stored_state(place, moment.flat));
  }
  return all;
}

// By size, largest first to the rank with least.
std::unordered_map<std::string, int> deal_parts(Communicator& world, const std::vector<StoredPart>& parts) {
  std::vector<Holding> holdings = gather_holdings(world, parts);
  std::ranges::stable_sort(holdings, std::greater{}, &Holding::bytes);
  std::vector<std::size_t> load(static_cast<std::size_t>(world.size()));
  std::unordered_map<std::string, int> owners;
  for (const Holding& holding : holdings) {
    const int least =
        *std::ranges::min_element(holding.ranks, {}, [&](int rank) { return load[static_cast<std::size_t>(rank)]; });
    load[static_cast<std::size_t>(least)] += holding.bytes;
    owners[holding.key] = least;
  }
  return owners;
}

}  // namespace weft
