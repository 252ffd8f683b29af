#include "parallel/checkpoint.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.hpp"
#include "core/io/checksum.hpp"
#include "core/io/mapped_file.hpp"
#include "core/io/safetensors.hpp"
#include "parallel/checkpoint_parts.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

// Nothing for names that a person gave ("step-best", "step-00000100.good").
std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(checkpoint_prefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + checkpoint_prefix.size(), end, step);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return step;
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

void read_tensor(ExecContext& exec, const CheckpointTensor& tensor, const StoredTensor& stored, PieceReader& reader,
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

void check_model(const CheckpointIndex& index, const std::vector<StoredTensor>& tensors, const CheckpointTarget& target,
                 const fs::path& folder) {
  for (const StoredTensor& stored : tensors) {
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
  const std::vector<StoredTensor> tensors = stored_tensors(target);
  run_on_all(world, [&] {
    check_model(index, tensors, target, folder);
    PieceReader reader(folder);
    for (const StoredTensor& stored : tensors)
      read_tensor(target.exec, index.tensors.at(stored.name), stored, reader, folder);
  });
  for (Parameter* parameter : target.parameters.all()) parameter->changed();
  if (target.optimizer) target.optimizer->set_applied(target.exec, index.state.applied);
}

std::vector<fs::path> list_checkpoints(const fs::path& parent) {
  std::vector<fs::path> found = list_complete(parent, checkpoint_prefix);
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
