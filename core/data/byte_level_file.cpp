#include "core/data/byte_level_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/data/byte_level_bpe.hpp"
#include "core/io/json_excerpt.hpp"

namespace weft::detail {
namespace {

using nlohmann::json;

// Printable bytes stand for themselves, the others for characters from 256 on (GPT-2's encoder.py).
std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {
    const std::array<char32_t, 256> characters = byte_characters();
    for (std::size_t byte = 0; byte < 256; ++byte) bytes_[characters[byte]] = static_cast<char>(byte);
  }

  ByteLevelFile read(std::string_view text) {
    const json content = json::parse(text, nullptr, false);
    if (!content.is_object()) fail_user("file '{}' is damaged: a JSON object would be right", file_);
    must_be(content, "", "normalizer", {nullptr});
    must_be(content, "", "truncation", {nullptr});
    must_be(content, "", "padding", {nullptr});
    ByteLevelFile result;
    read_splitter(content, result);
    const json& decoder = object(content, "", "decoder");
    must_be(decoder, "decoder.", "type", {"ByteLevel"});
    const json& model = object(content, "", "model");
    read_model(model, result);
    read_added(content, result);
    return result;
  }

 private:
  [[noreturn]] void refuse(std::string_view prefix, std::string_view name, const json& found,
                           std::string_view right) const {
    fail_user("file '{}': `{}{}`: found {}, {} would be right", file_, prefix, name, json_excerpt(found), right);
  }
  static const json& field(const json& object, std::string_view name) {
    static const json none;
    const auto found = object.find(name);
    return found == object.end() ? none : *found;
  }
  const json& object(const json& parent, std::string_view prefix, std::string_view name) const {
    const json& found = field(parent, name);
    if (!found.is_object()) refuse(prefix, name, found, "an object");
    return found;
  }
  /// What is missing is null.
  void must_be(const json& parent, std::string_view prefix, std::string_view name,
               std::initializer_list<json> allowed) const {
    const json& found = field(parent, name);
    if (std::ranges::find(allowed, found) == allowed.end()) refuse(prefix, name, found, allowed.begin()->dump());
  }
  bool yes_no(const json& parent, std::string_view prefix, std::string_view name, bool otherwise) const {
    const json& found = field(parent, name);
    if (found.is_null()) return otherwise;
    if (!found.is_boolean()) refuse(prefix, name, found, "true or false");
    return found.get<bool>();
  }

  void read_splitter(const json& content, ByteLevelFile& result) const {
    const json& whole = object(content, "", "pre_tokenizer");
    if (field(whole, "type") != "Sequence") return read_byte_level(whole, "pre_tokenizer.", result);
    const json& parts = field(whole, "pretokenizers");
    if (!parts.is_array() || parts.size() != 2 || !parts[0].is_object() || !parts[1].is_object())
      refuse("pre_tokenizer.", "pretokenizers", parts, "a Split and a ByteLevel");
    constexpr std::string_view split = "pre_tokenizer.pretokenizers[0].", bytes = "pre_tokenizer.pretokenizers[1].";
    must_be(parts[0], split, "type", {"Split"});
    must_be(parts[0], split, "behavior", {"Isolated"});
    must_be(parts[0], split, "invert", {false});
    const json& pattern = object(parts[0], split, "pattern");
    const json& expression = field(pattern, "Regex");
    std::optional<WordSplitter> splitter;
    if (expression.is_string()) splitter = WordSplitter::of_pattern(expression.get_ref<const std::string&>());
    if (!splitter) refuse(split, "pattern", pattern, "the expression of GPT-2, Llama 3 or Qwen 2");
    read_byte_level(parts[1], bytes, result);
    if (result.splitter) refuse(bytes, "use_regex", true, "false");
    result.splitter = std::move(splitter);
  }
  void read_byte_level(const json& part, std::string_view prefix, ByteLevelFile& result) const {
    must_be(part, prefix, "type", {"ByteLevel"});
    must_be(part, prefix, "add_prefix_space", {false});
    if (yes_no(part, prefix, "use_regex", true)) result.splitter = WordSplitter::gpt2();
  }

  void read_model(const json& model, ByteLevelFile& result) {
    constexpr std::string_view prefix = "model.";
    must_be(model, prefix, "type", {"BPE"});
    must_be(model, prefix, "dropout", {nullptr, 0.0});
    must_be(model, prefix, "continuing_subword_prefix", {"", nullptr});
    must_be(model, prefix, "end_of_word_suffix", {"", nullptr});
    must_be(model, prefix, "byte_fallback", {false, nullptr});
    result.whole_words = yes_no(model, prefix, "ignore_merges", false);
    const json& vocabulary = object(model, prefix, "vocab");
    for (const auto& [text, value] : vocabulary.items()) {
      const std::int32_t id = read_id(value, fmt::format("model.vocab[{}]", json(text).dump()), vocabulary.size());
      if (!ids_.emplace(text, id).second) refuse(prefix, "vocab", text, "each token once");
      std::string bytes = to_bytes(text);
      put(result, id, bytes, fmt::format("model.vocab[{}]", json(text).dump()));
      result.words.emplace_back(std::move(bytes), id);
    }
    const std::array<char32_t, 256> characters = byte_characters();
    for (std::size_t byte = 0; byte < 256; ++byte) {
      std::string text;
      append_utf8(characters[byte], text);
      const auto found = ids_.find(text);
      if (found == ids_.end()) refuse(prefix, "vocab", nullptr, fmt::format("a token {} for byte {}", text, byte));
      result.bytes[byte] = found->second;
    }
    read_merges(field(model, "merges"), result);
  }

  void read_merges(const json& merges, ByteLevelFile& result) const {
    if (!merges.is_array()) refuse("model.", "merges", merges, "a list of pairs");
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const json& merge = merges[rank];
      const std::string name = fmt::format("merges[{}]", rank);
      std::string left, right;
      if (merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        const std::size_t blank = text.find(' ');
        if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos)
          refuse("model.", name, merge, "two tokens and a space between");
        left = text.substr(0, blank);
        right = text.substr(blank + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else {
        refuse("model.", name, merge, "a pair of tokens");
      }
      const auto a = ids_.find(left), b = ids_.find(right), both = ids_.find(left + right);
      if (a == ids_.end() || b == ids_.end() || both == ids_.end())
        refuse("model.", name, merge, "two tokens of the vocabulary that make a third");
      result.merges.push_back({a->second, b->second, both->second});
    }
  }

  void read_added(const json& content, ByteLevelFile& result) {
    const json& list = field(content, "added_tokens");
    if (list.is_null()) return;
    if (!list.is_array()) refuse("", "added_tokens", list, "a list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string name = fmt::format("added_tokens[{}]", i), prefix = name + ".";
      const json& token = list[i];
      if (!token.is_object()) refuse("", name, token, "an object");
      const json& text = field(token, "content");
      if (!text.is_string() || text.get_ref<const std::string&>().empty())
        refuse(prefix, "content", text, "a text of one character or more");
      for (const char* flag : {"single_word", "lstrip", "rstrip"}) must_be(token, prefix, flag, {false, nullptr});
      const std::int32_t id = read_id(field(token, "id"), prefix + "id", ids_.size() + list.size());
      if (const auto own = ids_.find(text.get<std::string>()); own != ids_.end()) {
        if (own->second != id) refuse(prefix, "id", id, fmt::format("{}, as the vocabulary says,", own->second));
        if (to_bytes(own->first) != own->first)
          refuse(prefix, "content", text, "a text whose characters stand for themselves");
        result.texts[static_cast<std::size_t>(id)].clear();
        taken_[static_cast<std::size_t>(id)] = false;
      }
      put(result, id, text.get<std::string>(), prefix + "id");
      result.added.push_back({text.get<std::string>(), id, yes_no(token, prefix, "normalized", true)});
    }
  }

  // Vocabularies may have holes, but not so many that their numbers cost memory.
  std::int32_t read_id(const json& value, std::string_view name, std::size_t tokens) const {
    const std::uint64_t most = 2 * tokens + 4096;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most)
      refuse("", name, value, fmt::format("a number from 0 to {}", most));
    return static_cast<std::int32_t>(value.get<std::uint64_t>());
  }
  void put(ByteLevelFile& result, std::int32_t id, std::string text, std::string_view name) {
    const auto at = static_cast<std::size_t>(id);
    if (at >= result.texts.size()) {
      result.texts.resize(at + 1);
      taken_.resize(at + 1);
    }
    if (taken_[at]) refuse("", name, id, "a number that no other token has");
    taken_[at] = true;
    result.texts[at] = std::move(text);
  }
  // A token with another character stands for itself.
  std::string to_bytes(std::string_view text) const {
    std::string bytes;
    for (std::string_view rest = text; !rest.empty();) {
      const Character character = first_character(rest);
      const auto found = bytes_.find(character.code);
      if (found == bytes_.end()) return std::string(text);
      bytes += found->second;
      rest.remove_prefix(character.bytes);
    }
    return bytes;
  }

  const std::string& file_;
  std::unordered_map<char32_t, char> bytes_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::vector<bool> taken_;
};

}  // namespace

ByteLevelFile read_byte_level_file(const std::string& file, std::string_view text) { return Reader(file).read(text); }

std::string byte_level_json() {
  json vocabulary = json::object();
  const std::array<char32_t, 256> characters = byte_characters();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string text;
    append_utf8(characters[byte], text);
    vocabulary[text] = byte;
  }
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const json content = {{"version", "1.0"},
                        {"truncation", nullptr},
                        {"padding", nullptr},
                        {"added_tokens", json::array()},
                        {"normalizer", nullptr},
                        {"pre_tokenizer", bytes},
                        {"post_processor", nullptr},
                        {"decoder", bytes},
                        {"model",
                         {{"type", "BPE"},
                          {"dropout", nullptr},
                          {"unk_token", nullptr},
                          {"continuing_subword_prefix", nullptr},
                          {"end_of_word_suffix", nullptr},
                          {"fuse_unk", false},
                          {"byte_fallback", false},
                          {"ignore_merges", false},
                          {"vocab", std::move(vocabulary)},
                          {"merges", json::array()}}}};
  return content.dump(1) + "\n";
}

}  // namespace weft::detail
