#include "launcher/hugging_face_weights.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/dtype.hpp"
#include "core/base/error.hpp"
#include "core/io/json_excerpt.hpp"
#include "core/io/mapped_file.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view single_name = "model.safetensors", index_name = "model.safetensors.index.json";
constexpr std::string_view head_name = "lm_head.weight";

float from_half(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u,
                      fraction = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float small = std::ldexp(static_cast<float>(fraction), -24);
  return sign ? -small : small;
}

bool is_readable(std::string_view type) { return type == "F32" || type == "F16" || type == "BF16"; }

/// Elements of an entry, which may stand anywhere.
class Elements {
 public:
  Elements(std::string_view type, const std::byte* data) : type_(type), data_(data) {}

  float operator[](std::int64_t index) const {
    const auto at = static_cast<std::size_t>(index);
    if (type_ == "F32") return read<float>(at);
    if (type_ == "F16") return from_half(read<std::uint16_t>(at));
    return static_cast<float>(read<bf16>(at));
  }

 private:
  template <class Element>
  Element read(std::size_t index) const {
    Element element;
    std::memcpy(&element, data_ + index * sizeof(Element), sizeof(Element));
    return element;
  }

  std::string_view type_;
  const std::byte* data_;
};

// Of GPT-2's masks and Llama's frequencies, which follow from the configuration.
bool is_constant(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with(".rotary_emb.inv_freq");
}

// GPT2Model's and LlamaModel's own files name their tensors without what the class around them puts before.
std::string bare_name(const std::string& name) {
  for (const std::string_view prefix : {"transformer.", "model."})
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  return name;
}

json read_json(const fs::path& path) {
  const MappedFile map(path);
  return json::parse(std::string_view(reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()), nullptr,
                     false);
}

}  // namespace

HuggingFaceWeights::HuggingFaceWeights(const fs::path& path) : path_(path.string()) {
  const bool folder = fs::is_directory(path);
  fs::path file = path;
  if (folder) file /= fs::exists(path / single_name) ? single_name : index_name;
  if (!fs::exists(file)) fail_user("{}: neither {} nor {} in it", path_, single_name, index_name);
  if (file.string().ends_with(".index.json"))
    open_index(file);
  else
    open(file);
}

void HuggingFaceWeights::open_index(const fs::path& index) {
  const json content = read_json(index);
  const auto map = content.is_object() ? content.find("weight_map") : content.end();
  if (!content.is_object() || map == content.end() || !map->is_object())
    fail_user("{}: damaged, it should hold `weight_map`, tensors' names and their files", index.string());
  std::map<std::string, std::string> files;
  std::set<std::string> names;
  for (const auto& [tensor, value] : map->items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : std::string();
    if (file.empty() || fs::path(file).filename() != file)
      fail_user("{}: `weight_map`: tensor {}: found {}, a file's name would be right", index.string(), tensor,
                json_excerpt(value));
    files[tensor] = file;
    names.insert(file);
  }
  for (const std::string& name : names) open(index.parent_path() / name);
  for (const auto& [tensor, file] : files) {
    const auto found = places_.find(tensor);
    if (found == places_.end() || fs::path(found->second.file).filename() != file)
      fail_user("{}: it has no tensor {}, {} says it has", (index.parent_path() / file).string(), tensor,
                index.filename().string());
  }
}

void HuggingFaceWeights::open(const fs::path& file) {
  const SafetensorsReader& reader = readers_.emplace_back(file);
  for (const SafetensorsEntry& entry : reader.entries()) {
    const auto [place, made] = places_.try_emplace(entry.name, Place{&reader, &entry, file.string()});
    if (!made) fail_user("{}: tensor {} stands in {}, too", file.string(), entry.name, place->second.file);
  }
}

const HuggingFaceWeights::Place* HuggingFaceWeights::find(const std::string& name) const {
  for (const std::string& one : {name, bare_name(name)})
    if (const auto found = places_.find(one); found != places_.end()) return &found->second;
  return nullptr;
}

std::string HuggingFaceWeights::shown() const { return readers_.size() == 1 ? places_.begin()->second.file : path_; }

void HuggingFaceWeights::check_tied_head(const std::string& embedding) const {
  const Place* head = find(std::string(head_name));
  if (!head) return;
  const Place* shared = find(embedding);
  const auto a = head->reader->bytes(*head->entry), b = shared->reader->bytes(*shared->entry);
  if (head->entry->type != shared->entry->type || !std::ranges::equal(a, b))
    fail_user("{}: tensor {}: found other values than {}; with `tie_word_embeddings` true the same would be right",
              head->file, head_name, embedding);
}

void HuggingFaceWeights::check(const std::vector<HuggingFaceTensor>& tensors, const LmConfig& config) const {
  if (places_.empty()) fail_user("{}: no tensors in it", path_);
  std::set<const SafetensorsEntry*> known;
  for (const HuggingFaceTensor& tensor : tensors) {
    const Place* place = find(tensor.name);
    if (!place)
      fail_user("{}: no tensor {}; one of {} would be right{}", shown(), tensor.name, to_string(tensor.shape),
                tensor.name == head_name ? ", or `tie_word_embeddings` true in config.json" : "");
    const SafetensorsEntry& entry = *place->entry;
    if (!is_readable(entry.type))
      fail_user("{}: tensor {}: found {}, F32, F16 or BF16 would be right", place->file, entry.name, entry.type);
    if (!(entry.shape == tensor.shape))
      fail_user("{}: tensor {}: found {}, {} would be right", place->file, entry.name, to_string(entry.shape),
                to_string(tensor.shape));
    known.insert(&entry);
  }
  if (config.tied) {
    check_tied_head(tensors.front().name);
    if (const Place* head = find(std::string(head_name))) known.insert(head->entry);
  }
  for (const auto& [name, place] : places_)
    if (!known.contains(place.entry) && !is_constant(name))
      fail_user("{}: tensor {} {} is not of the model that config.json describes", place.file, name,
                to_string(place.entry->shape));
}

void HuggingFaceWeights::copy_into(ParameterStore& store, const std::vector<HuggingFaceTensor>& tensors) const {
  for (const HuggingFaceTensor& tensor : tensors) {
    Parameter* parameter = store.find(tensor.parameter);
    WEFT_CHECK(parameter, "the model has no {}", tensor.parameter);
    const Place* place = find(tensor.name);
    const std::int64_t columns = tensor.shape.numel() / tensor.rows;
    const Elements from(place->entry->type, place->reader->bytes(*place->entry).data());
    float* to = parameter->value().mut().as<float>() + tensor.first_row * columns;
    for (std::int64_t row = 0; row < tensor.rows; ++row)
      for (std::int64_t column = 0; column < columns; ++column)
        to[row * columns + column] = from[tensor.transposed ? column * tensor.rows + row : row * columns + column];
    parameter->changed();
  }
}

}  // namespace weft
