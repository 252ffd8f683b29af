#include "parallel/checkpoint.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/io/atomic_file.hpp"
#include "core/io/checksum.hpp"
#include "core/io/mapped_file.hpp"
#include "core/io/safetensors.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// A stored tensor of this rank: a parameter or one of its optimizer moments.
struct Stored {
  std::string name;
  Slice slice;
  MutView data;
};

/// A box of a stored tensor that this rank holds.
struct Part {
  const Stored* tensor;
  Box box;
  View data;
};

std::string join(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape.sizes()) text += (text.empty() ? "" : ",") + std::to_string(size);
  return text;
}

/// A part's name, the same on all ranks that hold it: the tensor's, and where it is not all of that, where it begins and
/// how large it is.
std::string key_of(const Part& part) {
  const Shape& shape = part.tensor->slice.global_shape;
  if (part.box.size == shape) return part.tensor->name;
  return fmt::format("{}@{}+{}", part.tensor->name, join(part.box.begin), join(part.box.size));
}

// What this rank may write.
std::vector<Part> parts_of(const std::vector<Stored>& tensors) {
  std::vector<Part> parts;
  for (const Stored& tensor : tensors) {
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

std::vector<Stored> stored_tensors(const CheckpointTarget& target) {
  std::vector<Stored> all;
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

/// Who holds which parts, as all ranks know it.
struct Holding {
  std::string key;
  std::size_t bytes = 0;
  std::vector<int> ranks;
};

std::vector<Holding> gather_holdings(Communicator& world, const std::vector<Part>& parts) {
  json own = json::array();
  for (const Part& part : parts) own.push_back({key_of(part), part.data.bytes()});
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

// Each part is dealt to one of the ranks that hold it by size, largest first to the rank with least; every rank computes the
// same.
std::unordered_map<std::string, int> deal(std::vector<Holding> holdings, int ranks) {
  std::ranges::stable_sort(holdings, std::greater{}, &Holding::bytes);
  std::vector<std::size_t> load(static_cast<std::size_t>(ranks));
  std::unordered_map<std::string, int> owners;
  for (const Holding& holding : holdings) {
    const int least =
        *std::ranges::min_element(holding.ranks, {}, [&](int rank) { return load[static_cast<std::size_t>(rank)]; });
    load[static_cast<std::size_t>(least)] += holding.bytes;
    owners[holding.key] = least;
  }
  return owners;
}

struct ShardResult {
  std::string error;
  std::uint64_t bytes = 0;
  std::vector<SafetensorsWritten> written;
  /// What each written part is, by key.
  struct Place {
    std::string tensor;
    Shape shape;
    Box box;
  };
  std::map<std::string, Place> boxes;
};

// Piece by piece from the device, whose memory may hold more than the host's.
SafetensorsSource source_of(ExecContext& exec, const std::string& key, const Part& part) {
  const auto fill = [&exec, bytes = part.data](std::size_t offset, std::span<std::byte> piece) {
    const auto size = static_cast<std::int64_t>(piece.size());
    const View from(static_cast<const char*>(bytes.data) + offset, {size}, DType::u8, bytes.device);
    exec.kernels().transfer.download(exec, from, MutView(piece.data(), {size}, DType::u8));
  };
  return {key, part.data.dtype, part.box.size, fill};
}

ShardResult write_shard(ExecContext& exec, const fs::path& path, const std::vector<Part>& parts,
                        const std::unordered_map<std::string, int>& owners, int rank, const FileSystem& files) {
  ShardResult result;
  try {
    std::vector<SafetensorsSource> sources;
    for (const Part& part : parts) {
      const std::string key = key_of(part);
      if (owners.at(key) != rank) continue;
      sources.push_back(source_of(exec, key, part));
      result.boxes[key] = {part.tensor->name, part.tensor->slice.global_shape, part.box};
    }
    result.written = write_safetensors(path, sources, {}, files);
    result.bytes = fs::file_size(path);
  } catch (const std::exception& error) {
    result.error = error.what();
  }
  return result;
}

json to_json(const Shape& shape) { return std::vector<std::int64_t>(shape.sizes().begin(), shape.sizes().end()); }

Shape shape_from(const json& value) { return Shape(value.get<std::vector<std::int64_t>>()); }

std::string encode(const ShardResult& result) {
  json parts = json::array();
  for (const SafetensorsWritten& written : result.written) {
    const ShardResult::Place& place = result.boxes.at(written.name);
    parts.push_back({{"key", written.name},
                     {"tensor", place.tensor},
                     {"shape", to_json(place.shape)},
                     {"begin", to_json(place.box.begin)},
                     {"size", to_json(place.box.size)},
                     {"checksum", checksum_text(written.checksum)}});
  }
  return json{{"error", result.error}, {"bytes", result.bytes}, {"parts", parts}}.dump(-1, ' ', false,
                                                                                       json::error_handler_t::replace);
}

std::string shard_name(int rank, int ranks) { return fmt::format("shard-{:05}-of-{:05}.safetensors", rank, ranks); }

constexpr std::string_view step_prefix = "step-";

std::string folder_name(std::int64_t step) { return fmt::format("{}{:08}", step_prefix, step); }

// Nothing for names that a person gave ("step-best", "step-00000100.good").
std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(step_prefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + step_prefix.size(), end, step);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return step;
}

CheckpointIndex make_index(const std::vector<json>& results, const CheckpointTarget& target) {
  CheckpointIndex index;
  const int ranks = static_cast<int>(results.size());
  for (int rank = 0; rank < ranks; ++rank) {
    const json& result = results[static_cast<std::size_t>(rank)];
    const std::string file = shard_name(rank, ranks);
    index.files[file] = result.at("bytes").get<std::uint64_t>();
    for (const json& part : result.at("parts")) {
      CheckpointTensor& tensor = index.tensors[part.at("tensor").get<std::string>()];
      tensor.shape = shape_from(part.at("shape"));
      tensor.pieces.push_back({file,
                               part.at("key").get<std::string>(),
                               {shape_from(part.at("begin")), shape_from(part.at("size"))},
                               part.at("checksum").get<std::string>()});
    }
  }
  for (const auto& [alias, name] : target.parameters.aliases()) index.aliases[alias] = name;
  return index;
}

bool meet(const Box& a, const Box& b) {
  for (int dim = 0; dim < a.begin.rank(); ++dim)
    if (a.begin[dim] + a.size[dim] <= b.begin[dim] || b.begin[dim] + b.size[dim] <= a.begin[dim]) return false;
  return true;
}

/// Reads pieces, each verified once.
class PieceReader {
 public:
  explicit PieceReader(fs::path folder) : folder_(std::move(folder)) {}

  const float* read(const CheckpointPiece& piece) {
    auto found = files_.find(piece.file);
    if (found == files_.end()) found = files_.emplace(piece.file, SafetensorsReader(folder_ / piece.file)).first;
    const SafetensorsReader& reader = found->second;
    const View view = reader.view(piece.key);
    const std::string where = (folder_ / piece.file).string();
    if (view.dtype != DType::f32 || view.numel() != piece.box.size.numel())
      fail_user("{}: {} is {} {}, the index says f32 {}", where, piece.key, name_of(view.dtype), to_string(view.shape),
                to_string(piece.box.size));
    const std::string sum = checksum_text(checksum(reader.bytes(reader.entry(piece.key))));
    if (sum != piece.checksum)
      fail_user("{}: the data of {} is damaged: checksum {}, the index says {}", where, piece.key, sum, piece.checksum);
    return view.as<float>();
  }

 private:
  fs::path folder_;
  std::map<std::string, SafetensorsReader> files_;
};

void read_tensor(ExecContext& exec, const CheckpointTensor& tensor, const Stored& stored, PieceReader& reader,
                 const fs::path& folder) {
  const Slice& slice = stored.slice;
  const std::vector<Box> boxes = slice.kept_boxes();
  std::vector<float> values(static_cast<std::size_t>(slice.numel()));
  std::int64_t copied = 0;
  for (const CheckpointPiece& piece : tensor.pieces) {
    if (std::ranges::none_of(boxes, [&](const Box& box) { return meet(box, piece.box); })) continue;
    const float* in = reader.read(piece);
    Slice held;
    held.global_shape = tensor.shape;
    held.boxes = {piece.box};
    struct Run {
      std::int64_t local, global, count;
    };
    std::vector<Run> runs;
    held.for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
      runs.push_back({local, global, count});
    });
    slice.for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
      auto run = std::ranges::lower_bound(runs, global, {}, [](const Run& r) { return r.global + r.count - 1; });
      for (; run != runs.end() && run->global < global + count; ++run) {
        const std::int64_t begin = std::max(global, run->global),
                           end = std::min(global + count, run->global + run->count);
        if (begin >= end) continue;
        std::copy_n(in + run->local + (begin - run->global), end - begin, values.data() + local + (begin - global));
        copied += end - begin;
      }
    });
  }
  if (copied != slice.numel())
    fail_user("{}: the pieces of {} hold {} of its {} elements", folder.string(), stored.name, copied, slice.numel());
  exec.kernels().transfer.upload(exec, View(values.data(), {slice.numel()}, DType::f32), stored.data);
}

void check_model(const CheckpointIndex& index, const std::vector<Stored>& tensors, const CheckpointTarget& target,
                 const fs::path& folder) {
  for (const Stored& stored : tensors) {
    const auto found = index.tensors.find(stored.name);
    const Shape& shape = stored.slice.global_shape;
    if (found == index.tensors.end())
      fail_user("{}: a checkpoint of another model: it has no tensor {} {}", folder.string(), stored.name,
                to_string(shape));
    if (!(found->second.shape == shape))
      fail_user("{}: a checkpoint of another model: {} is {} there and {} here", folder.string(), stored.name,
                to_string(found->second.shape), to_string(shape));
  }
  for (const auto& [name, tensor] : index.tensors)
    if (!name.starts_with("optimizer.") && !target.parameters.find(name))
      fail_user("{}: a checkpoint of another model: its tensor {} {} is not in this one", folder.string(), name,
                to_string(tensor.shape));
}

}  // namespace

std::optional<std::string> save_checkpoint(Communicator& world, const fs::path& parent, const CheckpointTarget& target,
                                           const RunState& state, const std::string& config, const FileSystem& files) {
  std::unique_ptr<AtomicFolder> folder;
  std::string started;
  try {
    started = from_first_rank(world, [&] {
      if (!files.exists(parent)) fs::create_directories(parent);
      folder = std::make_unique<AtomicFolder>(parent / folder_name(state.step), files);
      return folder->path().string();
    });
  } catch (const UserError& failed) {
    return failed.what();
  }

  const std::vector<Stored> tensors = stored_tensors(target);
  const std::vector<Part> parts = parts_of(tensors);
  const std::unordered_map<std::string, int> owners = deal(gather_holdings(world, parts), world.size());
  const fs::path shard = fs::path(started) / shard_name(world.rank(), world.size());
  const std::vector<std::string> texts =
      all_gather_text(world, encode(write_shard(target.exec, shard, parts, owners, world.rank(), files)));
  std::vector<json> results;
  std::string error;
  for (const std::string& text : texts) {
    results.push_back(json::parse(text));
    if (error.empty()) error = results.back().at("error").get<std::string>();
  }
  if (world.rank() == 0 && error.empty()) {
    try {
      CheckpointIndex index = make_index(results, target);
      index.state = state;
      index.config = config;
      write_file_atomic(folder->path() / "index.json", encode_index(index), files);
      folder->commit();
    } catch (const std::exception& failed) {
      error = failed.what();
    }
  }
  folder.reset();
  error = broadcast_text(world, error);
  if (error.empty()) return std::nullopt;
  return error;
}

CheckpointIndex read_index(Communicator& world, const fs::path& folder) {
  const fs::path path = folder / "index.json";
  const std::string text = from_first_rank(world, [&] {
    const MappedFile file(path);
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  });
  CheckpointIndex index = decode_index(text, path);
  run_on_all(world, [&] { check_files(index, folder); });
  return index;
}

void load_checkpoint(Communicator& world, const CheckpointIndex& index, const fs::path& folder,
                     const CheckpointTarget& target) {
  const std::vector<Stored> tensors = stored_tensors(target);
  run_on_all(world, [&] {
    check_model(index, tensors, target, folder);
    PieceReader reader(folder);
    for (const Stored& stored : tensors)
      read_tensor(target.exec, index.tensors.at(stored.name), stored, reader, folder);
  });
  for (Parameter* parameter : target.parameters.all()) parameter->changed();
  if (target.optimizer) target.optimizer->set_applied(target.exec, index.state.applied);
}

std::vector<fs::path> list_checkpoints(const fs::path& parent) {
  std::vector<fs::path> found = list_complete(parent, step_prefix);
  std::erase_if(found, [](const fs::path& folder) { return !step_of(folder); });
  std::ranges::sort(found, {}, [](const fs::path& folder) { return *step_of(folder); });
  return found;
}

fs::path find_checkpoint(const fs::path& path) {
  if (fs::exists(path / "index.json")) return path;
  for (const fs::path& parent : {path / "checkpoints", path})
    if (const auto all = list_checkpoints(parent); !all.empty()) return all.back();
  if (!fs::exists(path)) fail_user("{}: no such checkpoint or run folder", path.string());
  fail_user("{}: no checkpoint in it, expected index.json or checkpoints/step-…", path.string());
}

void prune_checkpoints(const fs::path& parent, std::int64_t keep) {
  if (keep <= 0) return;
  const std::vector<fs::path> all = list_checkpoints(parent);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < all.size(); ++i) remove_folder_atomic(all[i]);
}

void remove_checkpoints_after(const fs::path& parent, std::int64_t step) {
  for (const fs::path& folder : list_checkpoints(parent))
    if (*step_of(folder) > step) remove_folder_atomic(folder);
}

}  // namespace weft
