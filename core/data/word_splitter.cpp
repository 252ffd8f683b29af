// Alternatives are tried in the order in which the expressions have them:
//   GPT-2    '(s|t|re|ve|m|ll|d)   ?\p{L}+   ?\p{N}+   ?[^\s\p{L}\p{N}]+  \s+(?!\S)  \s+
//   Llama 3  the same in any case, [^\r\n\p{L}\p{N}]?\p{L}+  \p{N}{1,3}   ?[^\s\p{L}\p{N}]+[\r\n]*  \s*[\r\n]+  \s+(?!\S)  \s+
//   Qwen 2   as Llama 3, but \p{N} one by one
#include "core/data/word_splitter.hpp"

#include <limits>

namespace weft::detail {
namespace {

constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

bool is_line_end(char c) { return c == '\r' || c == '\n'; }

// Case folding takes the long s for an s.
constexpr char32_t long_s = 0x17f;

}  // namespace

std::optional<WordSplitter> WordSplitter::of_pattern(std::string_view pattern) {
  if (pattern == gpt2_pattern) return gpt2();
  if (pattern == llama3_pattern) return WordSplitter(Style::llama3, 3);
  if (pattern == qwen2_pattern) return WordSplitter(Style::llama3, 1);
  return std::nullopt;
}

WordSplitter WordSplitter::gpt2() { return {Style::gpt2, std::numeric_limits<int>::max()}; }

std::size_t WordSplitter::first_word(std::string_view text) const {
  return style_ == Style::gpt2 ? gpt2_word(text) : llama3_word(text);
}

WordSplitter::Step WordSplitter::at(std::string_view text, std::size_t position) const {
  const Character character = first_character(text.substr(position));
  return {classes_(character.code), character.code, character.bytes};
}

// White space is at the head of a word, or a word of its own; but in Llama 3's way line ends belong to the signs or the white
// space before them.
bool WordSplitter::parts_at(std::string_view text, std::size_t position) const {
  constexpr std::size_t longest_character = 4;
  std::size_t begin = position - 1;
  while (begin > 0 && position - begin < longest_character && is_continuation(text[begin])) --begin;
  const Step before = at(text, begin), after = at(text, position);
  if (before.bytes != position - begin) return false;
  if (before.kind == CharacterClass::space)
    return style_ == Style::llama3 && is_line_end(text[begin]) && after.kind != CharacterClass::space;
  return after.kind == CharacterClass::space &&
         (style_ == Style::gpt2 || before.kind != CharacterClass::other || !is_line_end(text[position]));
}

// The end of the characters of one class from there.
std::size_t WordSplitter::run(std::string_view text, std::size_t position, CharacterClass kind) const {
  while (position < text.size()) {
    const Step step = at(text, position);
    if (step.kind != kind) break;
    position += step.bytes;
  }
  return position;
}

// Its length at the head of the text; 0 where there is none.
std::size_t WordSplitter::contraction(std::string_view text) const {
  if (text[0] != '\'' || text.size() < 2) return 0;
  const bool any_case = style_ == Style::llama3;
  const auto letter = [&](std::size_t position) -> char32_t {
    if (position >= text.size()) return 0;
    const char32_t code = at(text, position).code;
    return any_case && code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
  };
  const char32_t first = letter(1), second = letter(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (any_case && first == long_s) return 1 + at(text, 1).bytes;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) return 3;
  return 0;
}

// Of white space before a word the last character is left to it.
std::size_t WordSplitter::spaces(std::string_view text) const {
  std::size_t end = 0, last = 0;
  while (end < text.size()) {
    const Step step = at(text, end);
    if (step.kind != CharacterClass::space) break;
    last = end;
    end += step.bytes;
  }
  return end == text.size() || last == 0 ? end : last;
}

std::size_t WordSplitter::gpt2_word(std::string_view text) const {
  if (const std::size_t length = contraction(text)) return length;
  const std::size_t begin = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const Step step = at(text, begin);
  if (step.kind != CharacterClass::space) return run(text, begin + step.bytes, step.kind);
  return spaces(text);
}

std::size_t WordSplitter::llama3_word(std::string_view text) const {
  if (const std::size_t length = contraction(text)) return length;
  const Step first = at(text, 0);
  if (first.kind == CharacterClass::letter) return run(text, first.bytes, CharacterClass::letter);
  if (first.kind != CharacterClass::number && !is_line_end(text[0]) && first.bytes < text.size()) {
    const std::size_t end = run(text, first.bytes, CharacterClass::letter);
    if (end > first.bytes) return end;
  }
  if (first.kind == CharacterClass::number) {
    std::size_t end = first.bytes;
    for (int count = 1; count < digits_ && end < text.size(); ++count) {
      const Step step = at(text, end);
      if (step.kind != CharacterClass::number) break;
      end += step.bytes;
    }
    return end;
  }
  const std::size_t begin = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  if (at(text, begin).kind == CharacterClass::other) {
    std::size_t end = run(text, begin, CharacterClass::other);
    while (end < text.size() && is_line_end(text[end])) ++end;
    return end;
  }
  // White space up to its last line end, if it has one.
  const std::size_t all = run(text, 0, CharacterClass::space);
  const std::size_t line_end = text.substr(0, all).find_last_of("\r\n");
  return line_end == std::string_view::npos ? spaces(text) : line_end + 1;
}

}  // namespace weft::detail
