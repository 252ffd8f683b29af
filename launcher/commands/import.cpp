// weft import: a Hugging Face model as a run that other commands go on from.
#include <fmt/format.h>

#include <filesystem>

#include "core/base/log.hpp"
#include "core/data/tokenizer.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/mapped_file.hpp"
#include "launcher/hugging_face_config.hpp"
#include "launcher/hugging_face_weights.hpp"
#include "launcher/options_check.hpp"
#include "launcher/ranks.hpp"
#include "launcher/saved_model.hpp"
#include "launcher/standard_output.hpp"
#include "parallel/checkpoint.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

HuggingFaceModel read_model(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const MappedFile map(path);
  return parse_hugging_face_config({reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()},
                                   path.string());
}

// What a training of this model would have been started with.
Options training_options(const HuggingFaceModel& theirs) {
  Options trained = parse_config("train", "", "the defaults");
  trained.model = theirs.model;
  trained.train.seq = theirs.seq;
  resolve(trained);
  check_fit(trained);
  return trained;
}

void check_free(const fs::path& out) {
  if (fs::exists(out) && (!fs::is_directory(out) || !fs::is_empty(out)))
    fail_user("--out: {} exists and is not an empty folder; another would be right", out.string());
}

/// The folder's tokenizer, where there is one that Weft follows.
struct FoundTokenizer {
  TokenizerPtr tokenizer;
  std::string hint;  ///< what to do without
};

FoundTokenizer find_tokenizer(const fs::path& folder) {
  std::string reasons;
  for (const std::string_view name : tokenizer_files) {
    if (!fs::exists(folder / name)) continue;
    try {
      return {load_tokenizer(folder / name), {}};
    } catch (const UserError& error) {
      reasons += fmt::format("{}; ", error.what());
    }
  }
  if (reasons.empty()) reasons = fmt::format("no tokenizer.json or tokenizer.model in {}; ", folder.string());
  return {nullptr,
          fmt::format("no tokenizer is imported: {}sample, eval and prepare will need --tokenizer-file", reasons)};
}

ExitStatus import_model(const Options& options, MpiRuntime& mpi, CommLog& log) {
  if (mpi.size() > 1)
    fail_user("import: found {} ranks, one would be right: any layout takes what it writes", mpi.size());
  const fs::path from = options.import.from, out = options.run.out;
  if (!fs::exists(from)) fail_user("{}: no such file or folder", from.string());
  check_free(out);
  const fs::path from_folder = fs::is_directory(from) ? from : from.parent_path();
  const HuggingFaceModel theirs = read_model(from_folder);
  const Options trained = training_options(theirs);
  const LmConfig config = make_lm_config(trained.model, trained.train.seq, 0);
  const HuggingFaceWeights weights(from);
  const std::vector<HuggingFaceTensor> tensors = hugging_face_tensors(config);
  weights.check(tensors, config);
  const FoundTokenizer found = find_tokenizer(from_folder);

  Session session(options, mpi, log);
  const std::unique_ptr<BuiltModel> built = build_model(config, session.mesh());
  ExecContext& exec = session.engine().exec();
  built->store.allocate_values(exec);
  weights.copy_into(built->store, tensors);

  const fs::path parent = fs::absolute(out / "").parent_path().parent_path();
  make_output_folder(parent, "--out");
  AtomicFolder folder(fs::absolute(out / "").parent_path());
  // How to train is left to whoever goes on with --config.
  write_file_atomic(folder.path() / "config.cfg", model_text(trained));
  if (found.tokenizer) found.tokenizer->save(folder.path() / found.tokenizer->file_name());
  RunState state;
  state.seed = trained.run.seed;
  if (const auto error = save_checkpoint(session.world(), folder.path() / "checkpoints", {exec, built->store, nullptr},
                                         state, config_text(trained)))
    fail("{}", *error);
  folder.commit();
  if (!options.run.quiet)
    print_output("{}\n{} parameters of {}, {} of {} tokens{}\n", out.string(), built->store.global_numel(), from.string(),
               trained.model.name, config.vocab,
               found.tokenizer ? fmt::format(", {} tokenizer", found.tokenizer->kind()) : "");
  if (!options.run.quiet) {
    for (const std::string& note : theirs.notes) log_warning("{}: {}", (from_folder / "config.json").string(), note);
    if (!found.tokenizer) log_warning("{}", found.hint);
  }
  return ExitStatus::done;
}

}  // namespace

ExitStatus run_import(const Options& options) {
  Options on_cpu = options;
  on_cpu.run.device = DeviceChoice::cpu;
  return with_ranks(on_cpu, [&](MpiRuntime& mpi, CommLog& log) { return import_model(on_cpu, mpi, log); });
}

}  // namespace weft
