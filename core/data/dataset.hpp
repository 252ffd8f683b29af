// From what --data, --valid, --valid-fraction and --format name to training and validation streams.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/data/token_file.hpp"

namespace weft {

struct DatasetOptions {
  std::vector<std::filesystem::path> data;   ///< files, or one folder that `weft prepare` wrote
  std::vector<std::filesystem::path> valid;  ///< empty: the folder's valid.bin, or the tail of each data file
  double valid_fraction = 0.1;               ///< of each file, its tail; 0: no validation stream
  TokenFileOptions file;
};

struct Dataset {
  TokenSources train;
  TokenSources valid;               ///< empty when there is none
  std::int64_t vocab_size = 0;      ///< declared, or the largest token plus one where nothing declares it
  std::filesystem::path tokenizer;  ///< empty: bytes, or unknown tokens
};

/// Throws UserError as open_tokens does, and when files declare different vocabularies.
Dataset open_dataset(const DatasetOptions& options);

/// The tokenizer's file that `weft prepare` left beside the tokens; empty: there is none, or the data is read as bytes.
/// Opens no token file.
std::filesystem::path find_tokenizer_file(const DatasetOptions& options);

/// The first file that would be taken for text (holds_text), whatever options.file.text_tokenizer is; empty: none is.
std::filesystem::path find_text_file(const DatasetOptions& options);

std::int64_t total_tokens(const TokenSources& sources);

}  // namespace weft
