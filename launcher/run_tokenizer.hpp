// Which tokenizer the tokens of a checkpoint's model are of.
#pragma once
#include <filesystem>

#include "core/data/dataset.hpp"
#include "core/data/tokenizer.hpp"
#include "launcher/saved_model.hpp"

namespace weft {

/// A vocabulary of bytes.
inline constexpr std::int64_t byte_tokens = 256;

/// The tokenizer's file beside a checkpoint or in its run's folder; empty: there is none.
std::filesystem::path find_run_tokenizer(const std::filesystem::path& checkpoint);

/// Throws UserError where a new run's folder holds a tokenizer that is not `tokenizer` (empty: none).
void check_run_tokenizer(const std::filesystem::path& run, const std::filesystem::path& tokenizer);
/// Copies `tokenizer` (empty: none) to a run's folder that has none. Atomic; throws IoError.
void keep_run_tokenizer(const std::filesystem::path& run, const std::filesystem::path& tokenizer);

/// Before training on `data` goes on from a checkpoint. Throws UserError when there is text, which training reads as bytes, and
/// the checkpoint's tokens are others: its run's tokenizer says so, or, where it has none, `bytes_unless_told` is false. Warns
/// when the data was prepared with another tokenizer.
void check_tokens(const DatasetOptions& data, const std::filesystem::path& checkpoint, bool bytes_unless_told);

/// What `file` (--tokenizer-file) names, else the run's, else the one beside its training data, else bytes; null: the model has
/// more tokens than bytes, and nothing says which.
TokenizerPtr model_tokenizer(const std::string& file, const SavedModel& saved);
/// Throws UserError where text needs it and there is none.
[[noreturn]] void fail_without_tokenizer(const SavedModel& saved);

}  // namespace weft
