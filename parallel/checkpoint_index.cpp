#include "parallel/checkpoint_index.hpp"

#include <nlohmann/json.hpp>

#include "core/io/checksum.hpp"

namespace weft {
namespace {

using nlohmann::json;

constexpr int format_version = 1;

// Of values in values; what is checked goes through it by recursion.
constexpr int deepest = 32;

json to_json(const Shape& shape) { return std::vector<std::int64_t>(shape.sizes().begin(), shape.sizes().end()); }

Shape shape_from(const json& value) {
  const auto sizes = value.get<std::vector<std::int64_t>>();
  for (const std::int64_t size : sizes) WEFT_CHECK(size >= 0, "negative size {}", size);
  return Shape(sizes);
}

json to_json(const CheckpointIndex& index) {
  json tensors = json::object();
  for (const auto& [name, tensor] : index.tensors) {
    json pieces = json::array();
    for (const CheckpointPiece& piece : tensor.pieces)
      pieces.push_back({{"file", piece.file},
                        {"key", piece.key},
                        {"begin", to_json(piece.box.begin)},
                        {"size", to_json(piece.box.size)},
                        {"checksum", piece.checksum}});
    tensors[name] = {{"shape", to_json(tensor.shape)}, {"pieces", std::move(pieces)}};
  }
  const RunState& state = index.state;
  return {{"format", "weft-checkpoint"},
          {"version", format_version},
          {"state",
           {{"step", state.step},
            {"applied", state.applied},
            {"next_sample", state.next_sample},
            {"epoch_samples", state.epoch_samples},
            {"tokens", state.tokens},
            {"seed", state.seed},
            {"skipped_in_a_row", state.skipped_in_a_row}}},
          {"config", index.config},
          {"tensors", std::move(tensors)},
          {"aliases", index.aliases},
          {"files", index.files}};
}

CheckpointIndex from_json(const json& content) {
  CheckpointIndex index;
  WEFT_CHECK(content.at("format") == "weft-checkpoint", "not a checkpoint's index");
  const int version = content.at("version").get<int>();
  WEFT_CHECK(version == format_version, "version {}, this build reads {}", version, format_version);
  const json& state = content.at("state");
  state.at("step").get_to(index.state.step);
  state.at("applied").get_to(index.state.applied);
  state.at("next_sample").get_to(index.state.next_sample);
  state.at("epoch_samples").get_to(index.state.epoch_samples);
  state.at("tokens").get_to(index.state.tokens);
  state.at("seed").get_to(index.state.seed);
  state.at("skipped_in_a_row").get_to(index.state.skipped_in_a_row);
  content.at("config").get_to(index.config);
  for (const auto& [name, value] : content.at("tensors").items()) {
    CheckpointTensor tensor;
    tensor.shape = shape_from(value.at("shape"));
    for (const json& piece : value.at("pieces"))
      tensor.pieces.push_back({piece.at("file").get<std::string>(), piece.at("key").get<std::string>(),
                               {shape_from(piece.at("begin")), shape_from(piece.at("size"))},
                               piece.at("checksum").get<std::string>()});
    index.tensors.emplace(name, std::move(tensor));
  }
  content.at("aliases").get_to(index.aliases);
  content.at("files").get_to(index.files);
  return index;
}

}  // namespace

std::string encode_index(const CheckpointIndex& index) {
  const json content = to_json(index);
  const std::string text = content.dump();
  const std::uint64_t sum = checksum(std::as_bytes(std::span(text)));
  return json{{"checksum", checksum_text(sum)}, {"content", content}}.dump(1) + "\n";
}

CheckpointIndex decode_index(std::string_view text, const std::filesystem::path& path) {
  try {
    const json whole = json::parse(text, [](int depth, json::parse_event_t, const json&) {
      WEFT_CHECK(depth < deepest, "nested deeper than any index");
      return true;
    });
    const std::string content = whole.at("content").dump();
    const std::string found = checksum_text(checksum(std::as_bytes(std::span(content))));
    WEFT_CHECK(found == whole.at("checksum"), "its checksum does not match");
    return from_json(whole.at("content"));
  } catch (const json::exception& error) {
    fail_user("{}: damaged index, not what `weft train` wrote ({})", path.string(), error.what());
  } catch (const UserError&) {
    throw;
  } catch (const Error& error) {
    fail_user("{}: damaged index: {}", path.string(), error.what());
  }
}

void check_files(const CheckpointIndex& index, const std::filesystem::path& folder) {
  for (const auto& [name, size] : index.files) {
    std::error_code failed;
    const std::uintmax_t found = std::filesystem::file_size(folder / name, failed);
    if (failed) fail_user("{}: missing ({}), the index lists it", (folder / name).string(), failed.message());
    if (found != size) fail_user("{}: {} bytes, the index says {}", (folder / name).string(), found, size);
  }
}

}  // namespace weft
