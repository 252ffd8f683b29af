// What a training run shows and writes while it goes on: progress, metrics, the summary and the report.
#include <algorithm>

#include "core/base/log.hpp"
#include "launcher/report.hpp"
#include "launcher/run_files.hpp"
#include "launcher/run_tokenizer.hpp"
#include "launcher/trainer.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {

void Trainer::open_flight_recorder() {
  const int rank = session_.mpi().rank();
  const std::filesystem::path folder = flight_folder(options_.run.out);
  std::error_code ignored;  // opening the file below says what is wrong
  std::filesystem::create_directories(folder, ignored);
  try {
    session_.log().open_flight_recorder(folder / fmt::format("rank-{:05}.bin", rank), rank,
                                        session_.mpi().places()[static_cast<std::size_t>(rank)].host);
  } catch (const Error& failed) {
    log_warning("training goes on without a flight record: {}", failed.what());
  }
}

void Trainer::open_outputs() {
  const std::string owes = from_first_rank(session_.world(), [&] {
    const std::filesystem::path tokenizer = find_tokenizer();
    if (checkpoints_found_ == 0) check_run_tokenizer(options_.run.out, tokenizer);
    folder_ = std::make_unique<RunFolder>(options_.run.out);
    take_folder();
    if (list_checkpoints(checkpoints_).size() != checkpoints_found_)
      fail_user(
          "--out: another run has saved in {} since this one started; another folder, or the same command again to "
          "resume, would be right",
          options_.run.out);
    folder_->write_config(options_);
    if (!session_.products().device.empty()) folder_->keep_product_table(session_.products());
    keep_run_tokenizer(folder_->root(), tokenizer);
    seconds_before_ = folder_->open_metrics(state_.step);
    read_earlier_rows();
    return owes_validation_ ? "yes" : "";
  });
  owes_validation_ = !owes.empty();
  open_flight_recorder();
  if (!folder_) return;
  ProgressOptions shown = detect_progress(options_.run.quiet);
  shown.steps = options_.train.steps;
  shown.first_step = state_.step;
  shown.max_seconds = options_.train.max_time;
  shown.log_every = options_.train.log_every;
  progress_ = std::make_unique<Progress>(shown);
  progress_->note(fmt::format("{} parameters, {} training tokens, {}",
                              format_count(static_cast<double>(built_->store.global_numel())),
                              format_count(static_cast<double>(total_tokens(data_.train))), describe_device()));
  if (state_.step > 0) progress_->note(fmt::format("resumed at step {} from {}", state_.step, started_from_.string()));
}

// Kept in the run's folder, so that it can be sampled from wherever its data is.
std::filesystem::path Trainer::find_tokenizer() const {
  std::error_code unseen;
  if (!data_.tokenizer.empty() && std::filesystem::exists(data_.tokenizer, unseen)) return data_.tokenizer;
  return started_from_.empty() ? std::filesystem::path() : find_run_tokenizer(started_from_);
}

// What the run's earlier starts have measured, and whether the last of them left out a validation.
void Trainer::read_earlier_rows() {
  const RunMetrics earlier = read_metrics(folder_->metrics());
  for (const StepMetrics& row : earlier.steps) rates_.push_back(row.tokens_per_s);
  for (const ValidMetrics& row : earlier.valid)
    best_valid_ = std::min(best_valid_.value_or(row.valid_loss), row.valid_loss);
  const bool done = !earlier.valid.empty() && earlier.valid.back().step == state_.step;
  owes_validation_ = valid_ && state_.step > 0 && validation_is_due() && !done;
}

std::string Trainer::describe_device() {
  const int ranks = session_.world().size();
  const std::string& products = session_.engine().device().facts().products;
  return fmt::format("{} rank{} on {}{}{}", ranks, ranks == 1 ? "" : "s", session_.engine().description(),
                     products.empty() ? "" : ", products by ", products);
}

void Trainer::report(const StepResult& result, double seconds, double lr, double exposed_ms) {
  if (!folder_) return;
  StepMetrics row;
  row.step = state_.step;
  row.loss = result.loss;
  row.lr = lr;
  row.grad_norm = result.grad_norm;
  row.tokens = state_.tokens;
  row.tokens_per_s = static_cast<double>(options_.train.batch * options_.train.seq) / seconds;
  row.step_ms = seconds * 1e3;
  row.tflops_per_rank = result.flops / seconds * 1e-12;
  const double peak_rate = session_.engine().matrix_rate(compute_);
  row.mfu = peak_rate > 0 ? result.flops / seconds / peak_rate : 0;
  row.comm_exposed_ms = exposed_ms;
  row.memory_peak_bytes = static_cast<std::int64_t>(session_.engine().memory().stats().total_peak);
  row.seconds = seconds_before_ + elapsed();
  row.skipped = result.skipped;
  rates_.push_back(row.tokens_per_s);
  progress_->step(row);
  if (state_.step % options_.train.log_every == 0 || state_.step == options_.train.steps) folder_->append(row);
}

void Trainer::write_outcome(const std::string& status) {
  RunSummary summary;
  summary.status = status;
  summary.device = describe_device();
  for (const Axis axis : {Axis::dp, Axis::sp, Axis::tp})
    if (const int size = session_.mesh().size(axis); size > 1 || axis == Axis::dp)
      summary.layout += fmt::format("{}{} {}", summary.layout.empty() ? "" : " ", name_of(axis), size);
  if (options_.layout.zero > 0) summary.layout += fmt::format(" zero {}", options_.layout.zero);
  summary.dtype = name_of(compute_);
  summary.parameters = built_->store.global_numel();
  summary.ranks = session_.world().size();
  summary.tokens = state_.tokens;
  summary.steps = state_.step;
  summary.seconds = seconds_before_ + elapsed();
  summary.best_valid_loss = best_valid_;
  if (!rates_.empty()) {
    const auto middle = rates_.begin() + static_cast<std::ptrdiff_t>(rates_.size() / 2);
    std::ranges::nth_element(rates_, middle);
    summary.tokens_per_s = *middle;
  }
  folder_->write_summary(summary);
  folder_->flush();
  write_report(folder_->root());
}

}  // namespace weft
