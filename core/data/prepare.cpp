#include "core/data/prepare.hpp"

#include <algorithm>
#include <array>
#include <memory>

#include "core/base/error.hpp"
#include "core/data/token_writer.hpp"
#include "core/data/utf8.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/mapped_file.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t search_bytes = std::size_t{1} << 20;
constexpr std::size_t longest_piece = std::size_t{2} << 20;

// Where to cut `text` at about `position`, with text on both sides: after the next newline, or, in text without lines,
// before a blank, or at least before a character.
std::size_t cut_near(std::string_view text, std::size_t position) {
  const std::size_t newline = text.substr(position).substr(0, search_bytes).find('\n');
  if (newline != std::string_view::npos && position + newline + 1 < text.size()) return position + newline + 1;
  const std::size_t begin = position - std::min(position, search_bytes);
  const std::size_t blank = text.substr(begin, position - begin).rfind(' ');
  if (blank != std::string_view::npos && begin + blank > 0) return begin + blank;
  return position - detail::incomplete_utf8_tail(text.substr(0, position));
}

// The first place from `position` on where parts have the tokens of the whole; a longer search than longest_piece costs memory.
std::size_t cut_between_tokens(std::string_view text, std::size_t position, const Tokenizer& tokenizer) {
  const std::size_t last = std::min(text.size(), std::max(position, longest_piece));
  for (std::size_t at = std::max<std::size_t>(1, position); at < last; ++at)
    if (tokenizer.parts_at(text, at)) return at;
  return last == text.size() ? last : cut_near(text, last);
}

struct Part {
  std::shared_ptr<const MappedFile> file;
  std::string_view text;
};

struct Parts {
  std::vector<Part> train;
  std::vector<Part> valid;
};

std::int64_t bytes_of(const std::vector<Part>& parts) {
  std::int64_t total = 0;
  for (const Part& part : parts) total += static_cast<std::int64_t>(part.text.size());
  return total;
}

Part open_part(const fs::path& path) {
  auto file = std::make_shared<const MappedFile>(path);
  if (file->bytes().empty()) fail_user("file '{}' is empty", path.string());
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  return {std::move(file), text};
}

Parts open_parts(const PrepareOptions& options) {
  if (options.inputs.empty()) fail_user("no input file is given");
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1))
    fail_user("a validation fraction of {} is not in [0, 1)", options.valid_fraction);
  Parts parts;
  for (const fs::path& path : options.inputs) {
    const Part whole = open_part(path);
    std::size_t cut = whole.text.size();
    if (options.valid_inputs.empty() && options.valid_fraction > 0)
      cut = cut_near(whole.text, static_cast<std::size_t>(static_cast<double>(cut) * (1.0 - options.valid_fraction)));
    if (cut > 0) parts.train.push_back({whole.file, whole.text.substr(0, cut)});
    if (cut < whole.text.size()) parts.valid.push_back({whole.file, whole.text.substr(cut)});
  }
  for (const fs::path& path : options.valid_inputs) parts.valid.push_back(open_part(path));
  if (parts.train.empty()) fail_user("a validation fraction of {} leaves no text to train on", options.valid_fraction);
  return parts;
}

class Progress {
 public:
  Progress(const PrepareOptions& options, std::int64_t total) : report_(options.progress), total_(total) {}
  void advance(std::size_t bytes) {
    done_ += static_cast<std::int64_t>(bytes);
    if (report_) report_(done_, total_);
  }

 private:
  const std::function<void(std::int64_t, std::int64_t)>& report_;
  std::int64_t total_;
  std::int64_t done_ = 0;
};

// Pieces of `bytes` or more, which `cut` ends.
void for_each_piece(const std::vector<Part>& parts, std::size_t bytes, Progress& progress,
                    const std::function<std::size_t(std::string_view, std::size_t)>& cut,
                    const std::function<void(std::string_view)>& each) {
  for (const Part& part : parts) {
    std::string_view rest = part.text;
    while (!rest.empty()) {
      const std::size_t end = rest.size() <= bytes ? rest.size() : cut(rest, bytes);
      each(rest.substr(0, end));
      progress.advance(end);
      rest.remove_prefix(end);
    }
  }
}

TokenFileMeta encode_parts(const std::vector<Part>& parts, const Tokenizer& tokenizer, const fs::path& path,
                           std::size_t piece_bytes, Progress& progress, const FileSystem& files) {
  TokenWriter writer(path, tokenizer.vocab_size(), std::string(tokenizer.file_name()), files);
  std::vector<std::int32_t> tokens;
  const auto cut = [&](std::string_view text, std::size_t position) {
    return cut_between_tokens(text, position, tokenizer);
  };
  for_each_piece(parts, piece_bytes, progress, cut, [&](std::string_view piece) {
    tokens.clear();
    tokenizer.encode(piece, tokens);
    writer.write(tokens, static_cast<std::int64_t>(piece.size()));
  });
  writer.commit();
  return writer.meta();
}

void check_output(const PrepareOptions& options) {
  const std::string name = options.output.string();
  if (name.empty()) fail_user("no output folder is given");
  if (!fs::exists(options.output)) {
    const fs::path parent = fs::absolute(options.output / "").parent_path().parent_path();
    return make_output_folder(parent, "--out");
  }
  if (!fs::is_directory(options.output)) fail_user("output '{}' is no folder", name);
  if (fs::is_empty(options.output)) return;
  if (options.existing == ExistingOutput::refuse)
    fail_user("output folder '{}' is not empty: name another, or ask for it to be replaced", name);
  constexpr std::array<std::string_view, 6> own = {"train.bin",       "train.meta.json", "valid.bin",
                                                   "valid.meta.json", "tokenizer.json",  "tokenizer.model"};
  for (const auto& entry : fs::directory_iterator(options.output))
    if (std::find(own.begin(), own.end(), entry.path().filename()) == own.end())
      fail_user("output folder '{}' holds '{}', which prepare did not write: name another folder", name,
                entry.path().filename().string());
}

}  // namespace

PrepareResult prepare(const PrepareOptions& options, const FileSystem& files) {
  const Parts parts = open_parts(options);
  check_output(options);
  const bool trains = options.tokenizer.empty() && options.training.kind != TokenizerKind::bytes;
  const std::int64_t train_bytes = bytes_of(parts.train);
  Progress progress(options, train_bytes * (trains ? 2 : 1) + bytes_of(parts.valid));

  const TokenizerPtr tokenizer =
      options.tokenizer.empty()
          ? train_tokenizer(options.training,
                            [&](const std::function<void(std::string_view)>& each) {
                              for_each_piece(parts.train, options.piece_bytes, progress, cut_near, each);
                            })
          : load_tokenizer(options.tokenizer);

  AtomicFolder folder(options.output, files);
  tokenizer->save(folder.path() / tokenizer->file_name(), files);
  PrepareResult result;
  result.vocab_size = tokenizer->vocab_size();
  const TokenFileMeta train =
      encode_parts(parts.train, *tokenizer, folder.path() / "train.bin", options.piece_bytes, progress, files);
  result.train_tokens = train.tokens;
  result.train_bytes = train.text_bytes;
  if (!parts.valid.empty()) {
    const TokenFileMeta valid =
        encode_parts(parts.valid, *tokenizer, folder.path() / "valid.bin", options.piece_bytes, progress, files);
    result.valid_tokens = valid.tokens;
    result.valid_bytes = valid.text_bytes;
  }
  folder.commit();
  return result;
}

}  // namespace weft
