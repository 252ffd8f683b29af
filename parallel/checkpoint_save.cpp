#include "parallel/checkpoint_save.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.hpp"
#include "core/io/checksum.hpp"
#include "core/io/safetensors.hpp"
#include "core/kernels/table.hpp"
#include "parallel/checkpoint_parts.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::size_t alignment = 64;

/// What a rank has written.
struct Shard {
  std::string error;
  std::uint64_t bytes = 0;
  std::vector<SafetensorsWritten> written;
  /// What each written part is, by key.
  struct Place {
    std::string tensor;
    Shape shape;
    Box box;
  };
  std::map<std::string, Place> places;
};

// Piece by piece from the device, whose memory may hold more than the host's.
SafetensorsSource source_on_device(ExecContext& exec, const std::string& key, const StoredPart& part) {
  const auto fill = [&exec, bytes = part.data](std::size_t offset, std::span<std::byte> piece) {
    const auto size = static_cast<std::int64_t>(piece.size());
    const View from(static_cast<const char*>(bytes.data) + offset, {size}, DType::u8, bytes.device);
    exec.kernels().transfer.download(exec, from, MutView(piece.data(), {size}, DType::u8));
  };
  return {key, part.data.dtype, part.box.size, fill};
}

json to_json(const Shape& shape) { return std::vector<std::int64_t>(shape.sizes().begin(), shape.sizes().end()); }

Shape shape_from(const json& value) { return Shape(value.get<std::vector<std::int64_t>>()); }

std::string encode(const Shard& shard) {
  json parts = json::array();
  for (const SafetensorsWritten& written : shard.written) {
    const Shard::Place& place = shard.places.at(written.name);
    parts.push_back({{"key", written.name},
                     {"tensor", place.tensor},
                     {"shape", to_json(place.shape)},
                     {"begin", to_json(place.box.begin)},
                     {"size", to_json(place.box.size)},
                     {"checksum", checksum_text(written.checksum)}});
  }
  return json{{"error", shard.error}, {"bytes", shard.bytes}, {"parts", parts}}.dump(-1, ' ', false,
                                                                                     json::error_handler_t::replace);
}

std::string shard_name(int rank, int ranks) { return fmt::format("shard-{:05}-of-{:05}.safetensors", rank, ranks); }

std::string folder_name(std::int64_t step) { return fmt::format("{}{:08}", checkpoint_prefix, step); }

CheckpointIndex make_index(const std::vector<std::string>& shards, const std::vector<ParameterStore::Alias>& aliases) {
  CheckpointIndex index;
  const int ranks = static_cast<int>(shards.size());
  for (int rank = 0; rank < ranks; ++rank) {
    const json result = json::parse(shards[static_cast<std::size_t>(rank)]);
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
  for (const auto& [alias, name] : aliases) index.aliases[alias] = name;
  return index;
}

}  // namespace

SnapshotMemory::~SnapshotMemory() { reserve(0); }

void SnapshotMemory::reserve(std::size_t bytes) {
  if (bytes != 0 && bytes <= bytes_) return;
  if (data_) device_.host_memory().deallocate(data_, bytes_, MemoryUse::workspace);
  data_ = nullptr;
  bytes_ = 0;
  if (bytes == 0) return;
  data_ = static_cast<char*>(device_.host_memory().allocate(bytes, MemoryUse::workspace));
  bytes_ = bytes;
}

std::vector<View> SnapshotMemory::copy(const std::vector<View>& parts) {
  std::vector<std::size_t> places;
  std::size_t bytes = 0;
  for (const View& part : parts) {
    places.push_back(bytes);
    bytes += (part.bytes() + alignment - 1) / alignment * alignment;
  }
  reserve(bytes);
  ExecContext& exec = device_.exec();
  std::vector<View> copies;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const MutView to(data_ + places[i], parts[i].shape, parts[i].dtype);
    exec.kernels().transfer.download_later(exec, parts[i], to);
    copies.push_back(to);
  }
  copied_->record(exec);
  return copies;
}

void SnapshotMemory::wait() {
  device_.enter_thread();
  copied_->wait();
}

CheckpointSave::CheckpointSave(Communicator& world, SnapshotMemory* memory, fs::path parent,
                               const CheckpointTarget& target, RunState state, std::string config,
                               const FileSystem& files)
    : world_(world), files_(files), state_(std::move(state)), beside_(memory != nullptr) {
  std::string started;
  try {
    started = from_first_rank(world, [&] {
      if (!files.exists(parent)) fs::create_directories(parent);
      folder_ = std::make_unique<AtomicFolder>(parent / folder_name(state_.step), files);
      return folder_->path().string();
    });
  } catch (const UserError& failed) {
    error_ = failed.what();
    return;
  }
  const std::vector<StoredTensor> tensors = stored_tensors(target);
  std::vector<StoredPart> parts = parts_of(tensors);
  const std::unordered_map<std::string, int> owners = deal_parts(world, parts);
  std::erase_if(parts, [&](const StoredPart& part) { return owners.at(part.key()) != world.rank(); });
  make_index_ = [this, config = std::move(config),
                 aliases = target.parameters.aliases()](const std::vector<std::string>& shards) {
    CheckpointIndex index = make_index(shards, aliases);
    index.state = state_;
    index.config = config;
    return index;
  };

  auto shard = std::make_shared<Shard>();
  std::vector<View> copies;
  std::string failed;
  for (const StoredPart& part : parts)
    shard->places[part.key()] = {part.tensor->name, part.tensor->slice.global_shape, part.box};
  if (memory) {
    try {
      for (const StoredPart& part : parts) copies.push_back(part.data);
      copies = memory->copy(copies);
    } catch (const Error& error) {  // no memory for it: the other ranks are told with the stage's end
      failed = fmt::format("rank {} has no memory for a copy of what it saves: {}", world.rank(), error.what());
    }
  }
  std::vector<SafetensorsSource> sources;
  for (std::size_t i = 0; failed.empty() && i < parts.size(); ++i)
    sources.push_back(memory ? SafetensorsSource(parts[i].key(), copies[i].reshaped(parts[i].box.size))
                             : source_on_device(target.exec, parts[i].key(), parts[i]));
  stage_ = Stage::writing;
  begin([&files, memory, shard, failed, sources = std::move(sources),
         path = fs::path(started) / shard_name(world.rank(), world.size())] {
    try {
      if (!failed.empty()) throw Error(failed);
      if (memory) memory->wait();
      shard->written = write_safetensors(path, sources, {}, files);
      shard->bytes = fs::file_size(path);
    } catch (const std::exception& error) {
      shard->error = error.what();
    }
    return encode(*shard);
  });
}

CheckpointSave::~CheckpointSave() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSave::begin(std::function<std::string()> work) {
  if (!beside_) {
    said_ = work();
    return;
  }
  busy_ = true;
  thread_ = std::thread([this, work = std::move(work)] {
    said_ = work();
    busy_.store(false, std::memory_order_release);
  });
}

std::string CheckpointSave::end() {
  if (thread_.joinable()) thread_.join();
  return std::exchange(said_, {});
}

bool CheckpointSave::advance() {
  if (stage_ == Stage::writing) {
    const std::vector<std::string> shards = all_gather_text(world_, end());
    for (const std::string& shard : shards)
      if (error_.empty()) error_ = json::parse(shard).at("error").get<std::string>();
    stage_ = error_.empty() ? Stage::appearing : Stage::over;
    if (!error_.empty()) folder_.reset();
    if (folder_)
      begin([this, index = make_index_(shards)] {
        try {
          write_file_atomic(folder_->path() / "index.json", encode_index(index), files_);
          folder_->commit();
        } catch (const std::exception& failed) {
          return std::string(failed.what());
        }
        return std::string();
      });
  } else if (stage_ == Stage::appearing) {
    const std::string said = end();
    folder_.reset();
    error_ = broadcast_text(world_, said);
    stage_ = Stage::over;
  }
  return stage_ == Stage::over;
}

std::optional<std::string> save_checkpoint(Communicator& world, const fs::path& parent, const CheckpointTarget& target,
                                           const RunState& state, const std::string& config, const FileSystem& files) {
  CheckpointSave save(world, nullptr, parent, target, state, config, files);
  while (!save.advance()) {
  }
  if (save.error().empty()) return std::nullopt;
  return save.error();
}

}  // namespace weft
