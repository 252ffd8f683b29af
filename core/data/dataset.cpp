#include "core/data/dataset.hpp"

#include <algorithm>
#include <cmath>

#include "core/base/error.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

// A folder of `weft prepare` stands for its train.bin and valid.bin.
void expand_folder(DatasetOptions& options) {
  if (options.valid.size() == 1 && fs::is_directory(options.valid[0])) {
    const fs::path folder = options.valid[0];
    const fs::path file = folder / (fs::exists(folder / "valid.bin") ? "valid.bin" : "train.bin");
    if (!fs::exists(file))
      fail_user("folder '{}' has no valid.bin: name files, or a folder that `weft prepare` wrote", folder.string());
    options.valid = {file};
  }
  if (options.data.size() != 1 || !fs::is_directory(options.data[0])) return;
  const fs::path folder = options.data[0];
  if (!fs::exists(folder / "train.bin"))
    fail_user("folder '{}' has no train.bin: name data files, or a folder that `weft prepare` wrote", folder.string());
  options.data = {folder / "train.bin"};
  if (options.valid.empty() && fs::exists(folder / "valid.bin")) options.valid = {folder / "valid.bin"};
}

TokenSources open_all(const std::vector<fs::path>& paths, const TokenFileOptions& options) {
  TokenSources sources;
  for (const fs::path& path : paths) sources.push_back(open_tokens(path, options));
  return sources;
}

void agree_on_vocab(Dataset& dataset) {
  const TokenSource* first = nullptr;
  std::int64_t scanned = 0;
  for (const TokenSources* sources : {&dataset.train, &dataset.valid}) {
    for (const TokenSourcePtr& source : *sources) {
      if (source->vocab_size() == 0) {
        scanned = std::max(scanned, scan_vocab(*source));
        continue;
      }
      if (first == nullptr) first = source.get();
      if (source->vocab_size() != first->vocab_size())
        fail_user("files '{}' and '{}' have different vocabularies: {} and {}", first->name(), source->name(),
                  first->vocab_size(), source->vocab_size());
    }
  }
  if (first != nullptr && scanned > first->vocab_size())
    fail_user("token {} is outside the vocabulary of {} that file '{}' declares", scanned - 1, first->vocab_size(),
              first->name());
  dataset.vocab_size = first != nullptr ? first->vocab_size() : scanned;
}

}  // namespace

Dataset open_dataset(const DatasetOptions& asked) {
  DatasetOptions options = asked;
  if (options.data.empty()) fail_user("no data file is given");
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1))
    fail_user("a validation fraction of {} is not in [0, 1)", options.valid_fraction);
  expand_folder(options);

  Dataset dataset;
  dataset.train = open_all(options.data, options.file);
  if (!options.valid.empty()) {
    dataset.valid = open_all(options.valid, options.file);
  } else if (options.valid_fraction > 0) {
    TokenSources heads;
    for (const TokenSourcePtr& source : dataset.train) {
      // Downwards, as nanoGPT cuts; the small term keeps 125 · (1 - 0.2) from becoming 99.
      const double exact = static_cast<double>(source->size()) * (1.0 - options.valid_fraction);
      const auto head = static_cast<std::int64_t>(std::floor(exact + 1e-6));
      heads.push_back(slice_tokens(source, 0, head));
      dataset.valid.push_back(slice_tokens(source, head, source->size()));
    }
    dataset.train = std::move(heads);
  }
  agree_on_vocab(dataset);

  dataset.tokenizer = find_tokenizer_file(asked);
  return dataset;
}

std::filesystem::path find_tokenizer_file(const DatasetOptions& asked) {
  DatasetOptions options = asked;
  if (options.data.empty()) return {};
  expand_folder(options);
  TokenFileMeta meta;
  const fs::path& first = options.data[0];
  if (options.file.format == TokenFormat::bytes || !read_meta(first, meta) || meta.tokenizer.empty()) return {};
  return first.parent_path() / meta.tokenizer;
}

std::filesystem::path find_text_file(const DatasetOptions& asked) {
  DatasetOptions options = asked;
  expand_folder(options);
  for (const std::vector<fs::path>* paths : {&options.data, &options.valid})
    for (const fs::path& path : *paths)
      if (holds_text(path, options.file)) return path;
  return {};
}

std::int64_t total_tokens(const TokenSources& sources) {
  std::int64_t total = 0;
  for (const TokenSourcePtr& source : sources) total += source->size();
  return total;
}

}  // namespace weft
