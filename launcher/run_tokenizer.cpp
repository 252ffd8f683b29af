#include "launcher/run_tokenizer.hpp"

#include <algorithm>

#include "core/base/log.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/mapped_file.hpp"
#include "launcher/data_setup.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

bool is_same(const fs::path& a, const fs::path& b) {
  const MappedFile one(a), other(b);
  return std::ranges::equal(one.bytes(), other.bytes());
}

}  // namespace

fs::path find_run_tokenizer(const fs::path& checkpoint) {
  const fs::path folder = fs::absolute(checkpoint / "").parent_path();
  const fs::path beside = tokenizer_in(folder);
  return beside.empty() ? tokenizer_in(folder.parent_path().parent_path()) : beside;
}

void check_run_tokenizer(const fs::path& run, const fs::path& tokenizer) {
  for (const std::string_view name : tokenizer_files)
    if (const fs::path there = run / name;
        fs::exists(there) && (tokenizer.filename() != name || !is_same(there, tokenizer)))
      fail_user("--out: found {}, which is not this run's tokenizer; another folder would be right", there.string());
}

void keep_run_tokenizer(const fs::path& run, const fs::path& tokenizer) {
  if (!tokenizer.empty() && tokenizer_in(run).empty()) copy_file_atomic(tokenizer, run / tokenizer.filename());
}

void check_tokens(const DatasetOptions& data, const fs::path& checkpoint, bool bytes_unless_told) {
  const fs::path own = find_run_tokenizer(checkpoint), text = find_text_file(data);
  const bool bytes = own.empty() ? bytes_unless_told : load_tokenizer(own)->is_bytes();
  if (!text.empty() && !bytes)
    fail_user(
        "--data: {} is text, which is read as bytes, and {} has other tokens; the folder that `weft prepare "
        "--tokenizer-file {} --out DIR {}` makes would be right",
        text.string(), checkpoint.string(), own.empty() ? "FILE" : own.string(), text.string());
  const fs::path with_data = find_tokenizer_file(data);
  if (!own.empty() && !with_data.empty() && fs::exists(with_data) && !is_same(own, with_data))
    log_warning("the tokenizer of --data, {}, is another file than the model's, {}", with_data.string(), own.string());
}

TokenizerPtr model_tokenizer(const std::string& file, const SavedModel& saved) {
  if (!file.empty()) return load_tokenizer(file);
  if (const fs::path own = find_run_tokenizer(saved.folder); !own.empty()) return load_tokenizer(own);
  const DataOptions& data = saved.trained.data;
  if (const fs::path beside_data = find_tokenizer_file(dataset_options(data)); !beside_data.empty())
    return load_tokenizer(beside_data);
  if (saved.built->model->config().vocab <= byte_tokens) return byte_tokenizer();
  const bool bytes = !data.data.empty() && open_data(data).vocab_size <= byte_tokens;
  return bytes ? byte_tokenizer() : nullptr;
}

void fail_without_tokenizer(const SavedModel& saved) {
  fail_user(
      "--tokenizer-file: missing; the model has {} tokens, and no tokenizer lies in its run's folder or beside its "
      "training data",
      saved.built->model->config().vocab);
}

}  // namespace weft
