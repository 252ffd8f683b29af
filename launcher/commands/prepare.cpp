// weft prepare --out DIR FILE...: text files to token files.
#include "core/data/prepare.hpp"

#include <fmt/core.h>

#include "core/base/clock.hpp"
#include "launcher/commands.hpp"
#include "launcher/placement.hpp"
#include "launcher/progress.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

TokenizerKind kind_of(TokenizerChoice choice) {
  switch (choice) {
    case TokenizerChoice::bytes: return TokenizerKind::bytes;
    case TokenizerChoice::words: return TokenizerKind::words;
    case TokenizerChoice::bpe: return TokenizerKind::bpe;
    case TokenizerChoice::unigram: return TokenizerKind::unigram;
  }
  return TokenizerKind::bytes;
}

std::vector<std::filesystem::path> paths(const std::vector<std::string>& names) { return {names.begin(), names.end()}; }

}  // namespace

ExitStatus run_prepare(const Options& options) {
  const bool sentencepiece =
      options.prepare.tokenizer == TokenizerChoice::bpe || options.prepare.tokenizer == TokenizerChoice::unigram;
  if (sentencepiece && options.model.vocab == 0 && options.prepare.tokenizer_file.empty())
    fail_user("--vocab is missing: say how many tokens a {} vocabulary gets", name_of(options.prepare.tokenizer));
  PrepareOptions what;
  what.inputs = paths(options.data.data);
  what.valid_inputs = paths(options.data.valid);
  what.valid_fraction = options.data.valid_fraction;
  what.output = options.run.out;
  what.existing = options.prepare.replace ? ExistingOutput::replace : ExistingOutput::refuse;
  what.training = {
      .kind = kind_of(options.prepare.tokenizer),
      .vocab_size = options.model.vocab,
      .min_count = options.prepare.min_count,
      .threads = options.run.threads > 0 ? static_cast<int>(options.run.threads) : default_threads(rank_environment())};
  what.tokenizer = options.prepare.tokenizer_file;
  const ProgressOptions terminal = detect_progress(options.run.quiet);
  double shown_at = 0;
  if (!terminal.quiet && terminal.columns > 0)
    what.progress = [&](std::int64_t done, std::int64_t total) {
      if (done < total && seconds_now() - shown_at < 0.1) return;
      shown_at = seconds_now();
      fmt::print(stderr, "\r{} of {} bytes\033[K{}", format_count(static_cast<double>(done)),
                 format_count(static_cast<double>(total)), done < total ? "" : "\r\033[K");
      std::fflush(stderr);
    };
  const PrepareResult result = prepare(what);
  if (!options.run.quiet)
    print_output("{}: {} training and {} validation tokens of {}\n", options.run.out, result.train_tokens,
               result.valid_tokens, result.vocab_size);
  return ExitStatus::done;
}

}  // namespace weft
