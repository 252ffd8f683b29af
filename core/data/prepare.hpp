// Text files to token files: train.bin and valid.bin (llm.c's header; uint16, or uint32 for vocabularies above 65536),
// their side files, and the tokenizer.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "core/data/tokenizer.hpp"

namespace weft {

/// What to do where the output folder exists and is not empty.
enum class ExistingOutput : std::uint8_t { refuse, replace };

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;
  std::vector<std::filesystem::path> valid_inputs;  ///< empty: the tail of each input, cut after a line
  double valid_fraction = 0.1;
  std::filesystem::path output;
  ExistingOutput existing = ExistingOutput::refuse;
  TokenizerTraining training;
  std::filesystem::path tokenizer;  ///< a saved tokenizer to use instead of training one
  std::size_t piece_bytes = std::size_t{1} << 20;  ///< of text that is read at a time, about
  /// Called now and then with bytes done and bytes in all.
  std::function<void(std::int64_t done, std::int64_t total)> progress;
};

struct PrepareResult {
  std::int64_t vocab_size = 0;
  std::int64_t train_tokens = 0;
  std::int64_t valid_tokens = 0;
  std::int64_t train_bytes = 0;
  std::int64_t valid_bytes = 0;
};

/// Reads and writes in pieces, with the tokens that the training and the validation part of each input have as a whole (only
/// text without a place to part it for 16 MiB is cut all the same). The output folder appears complete or not at all. The
/// tokenizer is trained on the training part alone. `replace` replaces only a folder that prepare wrote. Throws UserError on
/// bad input, IoError on a failed write.
PrepareResult prepare(const PrepareOptions& options, const FileSystem& files = FileSystem::posix());

}  // namespace weft
