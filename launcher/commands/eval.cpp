// weft eval: loss, perplexity and bits per byte of a checkpoint over a validation stream.
#include <nlohmann/json.hpp>

#include <cmath>

#include "core/io/atomic_file.hpp"
#include "launcher/data_setup.hpp"
#include "launcher/logits.hpp"
#include "launcher/run_tokenizer.hpp"
#include "launcher/signals.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

// Without --data the run's own validation data; with it, all of what is named unless --valid-fraction says otherwise. Text
// becomes the model's tokens.
Dataset open_eval_data(const Options& options, const SavedModel& saved) {
  DataOptions data = options.data;
  if (data.data.empty() && data.valid.empty()) {
    data = saved.trained.data;
  } else {
    if (data.data.empty()) data.data = data.valid;
    if (data.valid.empty() && !options.given("valid-fraction")) data.valid = data.data;
  }
  if (data.data.empty())
    fail_user(
        "--data: missing, and {} comes from a run without data; a file of text or tokens, or a folder of `weft "
        "prepare`, would be right",
        saved.folder.string());
  DatasetOptions dataset = dataset_options(data);
  TokenizerPtr tokenizer;
  if (!find_text_file(dataset).empty()) {
    tokenizer = model_tokenizer(options.prepare.tokenizer_file, saved);
    if (!tokenizer) fail_without_tokenizer(saved);
    if (!tokenizer->is_bytes()) dataset.file.text_tokenizer = tokenizer.get();
  }
  return open_dataset(dataset);
}

ExitStatus eval_checkpoint(const Options& options, Session& session) {
  if (const int ranks = session.mpi().size(); !options.eval.logits.empty() && ranks > 1)
    fail_user("--logits: found {} ranks, one would be right: they are of whole sequences", ranks);
  const SavedModel saved = load_saved_model(session, options.sample.checkpoint, options.layout);
  const Dataset data = open_eval_data(options, saved);
  if (data.valid.empty()) fail_user("--valid-fraction: found 0, so there is no validation data; give --valid FILE");
  const std::int64_t vocab = saved.built->model->config().vocab;
  if (data.vocab_size > vocab) fail_user("--data: it has {} tokens, the model has {}", data.vocab_size, vocab);
  const std::int64_t seq = options.given("seq") ? options.train.seq : saved.trained.train.seq;
  const LmConfig& config = saved.built->model->config();
  if (config.positions == PositionStyle::learned && seq > config.max_seq)
    fail_user("--seq: found {}, the model has learned positions for {}; that or less would be right", seq,
              config.max_seq);
  const EvalWindows windows(data.valid, seq);
  EvaluationOptions how;
  how.micro_batch = options.train.micro_batch;
  how.max_targets = options.train.valid_tokens;
  how.compute = session.compute();
  how.sharding = saved.sharding;
  if (seq < session.mesh().size(Axis::sp))
    fail_user("--sp: found {}; sequences of {} tokens go over that many ranks or fewer", session.mesh().size(Axis::sp),
              seq);
  const auto result = evaluate(session.worker(), *saved.built->model, windows, how, [] { return stop_signal() != 0; });
  if (!result) return ExitStatus::stopped;
  if (!options.eval.logits.empty() && !write_logits(options.eval.logits, session.worker(), *saved.built->model, windows,
                                                    how, [] { return stop_signal() != 0; }))
    return ExitStatus::stopped;
  if (!session.main_rank()) return ExitStatus::done;
  if (options.run.json) {
    nlohmann::json row = {{"checkpoint", saved.folder.string()},
                          {"loss", result->loss},
                          {"perplexity", std::exp(result->loss)},
                          {"targets", result->targets}};
    if (result->bits_per_byte) row["bpb"] = *result->bits_per_byte;
    print_output("{}\n", row.dump());
    return ExitStatus::done;
  }
  print_output("{}\nloss {:.4f} nats a token, perplexity {:.3f}{}, {} targets\n", saved.folder.string(), result->loss,
             std::exp(result->loss),
             result->bits_per_byte ? fmt::format(", {:.4f} bits a byte", *result->bits_per_byte) : std::string(),
             result->targets);
  return ExitStatus::done;
}

}  // namespace

ExitStatus run_eval(const Options& options) {
  catch_stop_signals();
  return with_session(options, [&](Session& session) { return eval_checkpoint(options, session); });
}

}  // namespace weft
