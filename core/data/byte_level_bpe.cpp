#include "core/data/byte_level_bpe.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <mutex>
#include <queue>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/data/byte_level_file.hpp"
#include "core/io/atomic_file.hpp"

namespace weft::detail {
namespace {

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

/// Tokens of words that were met before.
class WordCache {
 public:
  const std::vector<std::int32_t>* find(std::string_view word) const {
    const auto found = words_.find(word);
    return found == words_.end() ? nullptr : &found->second;
  }
  void add(std::string_view word, std::span<const std::int32_t> tokens) {
    constexpr std::size_t most_words = std::size_t{1} << 17, longest_word = 64;
    if (word.size() > longest_word) return;
    if (words_.size() >= most_words) words_.clear();
    words_.emplace(word, std::vector<std::int32_t>(tokens.begin(), tokens.end()));
  }

 private:
  std::unordered_map<std::string, std::vector<std::int32_t>, TextHash, std::equal_to<>> words_;
};

struct Merge {
  std::int32_t rank, token;
};

/// A symbol of a word, in a list of those that are left.
struct Symbol {
  std::int32_t token, previous, next;
  bool gone = false;
};

/// A pair that may be merged: the lowest rank first, of equal ones the leftmost.
struct Candidate {
  std::int32_t rank, position, token;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
}

/// Texts that are tokens as they stand, the longest first where several begin at one place.
class AddedTokens {
 public:
  void add(const std::string& text, std::int32_t id) {
    auto& list = by_first_[static_cast<unsigned char>(text[0])];
    list.emplace_back(text, id);
    std::ranges::stable_sort(list, std::greater{}, [](const auto& one) { return one.first.size(); });
    longest_ = std::max(longest_, text.size());
  }
  /// Whether one of them lies on both sides of the place.
  bool lies_across(std::string_view text, std::size_t position) const {
    for (std::size_t at = position - std::min(position, longest_); at < position; ++at)
      for (const auto& [token, id] : by_first_[static_cast<unsigned char>(text[at])])
        if (token.size() > position - at && text.substr(at).starts_with(token)) return true;
    return false;
  }
  /// Calls `plain` for text between them, `token` for each.
  template <class Plain, class Token>
  void split(std::string_view text, Plain plain, Token token) const {
    std::size_t begin = 0;
    for (std::size_t at = 0; longest_ > 0 && at < text.size();) {
      const auto& list = by_first_[static_cast<unsigned char>(text[at])];
      const auto found =
          std::ranges::find_if(list, [&](const auto& one) { return text.substr(at).starts_with(one.first); });
      if (found == list.end()) {
        ++at;
        continue;
      }
      if (at > begin) plain(text.substr(begin, at - begin));
      token(found->second);
      begin = at += found->first.size();
    }
    if (begin < text.size()) plain(text.substr(begin));
  }

 private:
  std::array<std::vector<std::pair<std::string, std::int32_t>>, 256> by_first_;
  std::size_t longest_ = 0;
};

class ByteLevelBpe final : public Tokenizer {
 public:
  ByteLevelBpe(const std::string& file, std::string text)
      : text_(std::move(text)), content_(read_byte_level_file(file, text_)) {
    for (std::size_t rank = 0; rank < content_.merges.size(); ++rank) {
      const auto& [left, right, token] = content_.merges[rank];
      merges_[pair_of(left, right)] = {static_cast<std::int32_t>(rank), token};
    }
    for (const ByteLevelFile::Added& added : content_.added)
      (added.normalized ? later_ : first_).add(added.text, added.id);
    if (content_.whole_words)
      for (const auto& [bytes, id] : content_.words) whole_.emplace(bytes, id);
  }

  std::string_view kind() const override { return byte_level_kind; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(content_.texts.size()); }
  bool is_bytes() const override {
    for (std::size_t byte = 0; byte < content_.bytes.size(); ++byte)
      if (content_.bytes[byte] != static_cast<std::int32_t>(byte)) return false;
    return content_.texts.size() == content_.bytes.size() && content_.added.empty();
  }
  std::string_view file_name() const override { return "tokenizer.json"; }

  void encode(std::string_view text, std::vector<std::int32_t>& tokens) const override {
    std::unique_ptr<WordCache> cache = take_cache();
    const auto token = [&](std::int32_t id) { tokens.push_back(id); };
    first_.split(
        text,
        [&](std::string_view piece) {
          later_.split(
              piece, [&](std::string_view plain) { encode_plain(plain, *cache, tokens); }, token);
        },
        token);
    const std::lock_guard lock(mutex_);
    caches_.push_back(std::move(cache));
  }

  bool parts_at(std::string_view text, std::size_t position) const override {
    return content_.splitter && content_.splitter->parts_at(text, position) && !first_.lies_across(text, position) &&
           !later_.lies_across(text, position);
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= vocab_size())
        fail_user("token {} is outside the tokenizer's vocabulary of {}", token, vocab_size());
      text += content_.texts[static_cast<std::size_t>(token)];
    }
    return text;
  }

  void save(const std::filesystem::path& path, const FileSystem& files) const override {
    write_file_atomic(path, text_, files);
  }
  std::string hugging_face_json() const override { return text_; }

 private:
  // Threads that encode at the same time have one each.
  std::unique_ptr<WordCache> take_cache() const {
    const std::lock_guard lock(mutex_);
    if (caches_.empty()) return std::make_unique<WordCache>();
    std::unique_ptr<WordCache> cache = std::move(caches_.back());
    caches_.pop_back();
    return cache;
  }

  void encode_plain(std::string_view text, WordCache& cache, std::vector<std::int32_t>& tokens) const {
    while (!text.empty()) {
      const std::string_view word =
          text.substr(0, content_.splitter ? content_.splitter->first_word(text) : text.size());
      text.remove_prefix(word.size());
      if (const auto* known = cache.find(word)) {
        tokens.insert(tokens.end(), known->begin(), known->end());
        continue;
      }
      const std::size_t before = tokens.size();
      encode_word(word, tokens);
      cache.add(word, std::span(tokens).subspan(before));
    }
  }

  void encode_word(std::string_view word, std::vector<std::int32_t>& tokens) const {
    if (const auto whole = whole_.find(word); whole != whole_.end()) return tokens.push_back(whole->second);
    std::vector<Symbol> symbols;
    for (const char c : word) {
      const auto at = static_cast<std::int32_t>(symbols.size());
      symbols.push_back({content_.bytes[static_cast<unsigned char>(c)], at - 1, at + 1});
    }
    symbols.back().next = -1;
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto find = [&](std::int32_t left) -> const Merge* {
      if (left < 0 || symbols[static_cast<std::size_t>(left)].next < 0) return nullptr;
      const Symbol& symbol = symbols[static_cast<std::size_t>(left)];
      const auto found = merges_.find(pair_of(symbol.token, symbols[static_cast<std::size_t>(symbol.next)].token));
      return found == merges_.end() ? nullptr : &found->second;
    };
    const auto offer = [&](std::int32_t left) {
      if (const Merge* merge = find(left)) queue.push({merge->rank, left, merge->token});
    };
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) offer(static_cast<std::int32_t>(i));
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      Symbol& left = symbols[static_cast<std::size_t>(best.position)];
      const Merge* merge = left.gone ? nullptr : find(best.position);
      if (!merge || merge->token != best.token) continue;
      Symbol& right = symbols[static_cast<std::size_t>(left.next)];
      left.token = best.token;
      right.gone = true;
      left.next = right.next;
      if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.position;
      offer(left.previous);
      offer(best.position);
    }
    for (const Symbol& symbol : symbols)
      if (!symbol.gone) tokens.push_back(symbol.token);
  }

  std::string text_;
  ByteLevelFile content_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>> whole_;
  AddedTokens first_, later_;  ///< those that no normalizer would change come first
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<WordCache>> caches_;
};

}  // namespace

TokenizerPtr byte_level_bpe(const std::string& file, std::string text) {
  return std::make_unique<ByteLevelBpe>(file, std::move(text));
}

}  // namespace weft::detail
