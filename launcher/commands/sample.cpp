// weft sample: text from a checkpoint.
#include "launcher/run_tokenizer.hpp"
#include "launcher/sampling.hpp"
#include "launcher/signals.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

// Seconds that other ranks wait for the text.
constexpr double sampling_allowance = 86400;

// On the ranks of one copy of the model, the first of which writes.
void write_sample(const Options& options, Session& session, const SavedModel& saved) {
  const std::int64_t vocab = saved.built->model->config().vocab;
  const TokenizerPtr tokenizer = model_tokenizer(options.prepare.tokenizer_file, saved);
  if (!tokenizer) fail_without_tokenizer(saved);
  std::vector<std::int32_t> prompt;
  tokenizer->encode(options.sample.prompt, prompt);
  if (prompt.empty()) fail_user("--prompt: it has no tokens; a text of one token or more would be right");
  for (const std::int32_t token : prompt)
    if (token >= vocab) fail_user("--prompt: token {} is outside the model's vocabulary of {}", token, vocab);
  SamplingOptions how;
  how.tokens = options.sample.tokens;
  how.temperature = options.sample.temperature;
  how.top_k = options.sample.top_k;
  how.top_p = options.sample.top_p;
  how.seed = options.run.seed;
  how.compute = session.compute();
  StreamingDecoder decoder(*tokenizer);
  bool read = true;  // by somebody
  const auto write = [&](const std::string& text) { read = read && write_output(text); };
  if (session.main_rank()) write(options.sample.prompt);
  sample_tokens(session.engine(), session.mesh().comm(Axis::tp), *saved.built->model, std::move(prompt), how,
                [&](std::int32_t token) {
                  write(token < tokenizer->vocab_size() ? decoder.push(token) : std::string());
                  return read && stop_signal() == 0;
                });
  if (session.main_rank()) write(decoder.finish() + "\n");
}

ExitStatus sample_checkpoint(const Options& options, Session& session) {
  const SavedModel saved = load_saved_model(session, options.sample.checkpoint, options.layout);
  // A rank that left would end the job in the middle of the first one's text.
  session.log().set_phase("sampling", sampling_allowance);
  if (session.mesh().coordinate(Axis::dp) == 0) write_sample(options, session, saved);
  session.world().barrier().wait();
  return ExitStatus::done;
}

}  // namespace

ExitStatus run_sample(const Options& options) {
  catch_stop_signals();
  return with_session(options, [&](Session& session) { return sample_checkpoint(options, session); });
}

}  // namespace weft
