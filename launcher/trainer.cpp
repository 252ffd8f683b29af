#include "launcher/trainer.hpp"

#include <algorithm>

#include "core/base/clock.hpp"
#include "core/base/log.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/slow_file_system.hpp"
#include "launcher/data_setup.hpp"
#include "launcher/environment.hpp"
#include "launcher/evaluation.hpp"
#include "launcher/memory_prediction.hpp"
#include "launcher/options_check.hpp"
#include "launcher/run_tokenizer.hpp"
#include "launcher/sharding_setup.hpp"
#include "launcher/signals.hpp"
#include "launcher/step_setup.hpp"
#include "parallel/comm/agreement.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

// Of a slow disk, before the first save has shown what this one does.
constexpr double bytes_saved_per_second = 1e8;

}  // namespace

Trainer::Trainer(const Options& options, Session& session)
    : options_(options), session_(session), checkpoints_(std::filesystem::path(options.run.out) / "checkpoints"),
      began_(seconds_now()) {
  session.log().set_phase("start", file_allowance_seconds);
  if (const auto seconds = environment("WEFT_TEST_SLOW_DISK"))
    test_files_ = std::make_unique<SlowFileSystem>(std::stod(*seconds));
  check_layout(options.layout);
  const TrainOptions& train = options.train;
  data_ = open_data(options.data);
  SamplerOptions order;
  order.seq = train.seq;
  order.seed = options.run.seed;
  order.order = options.data.sampler == SamplerChoice::shuffled ? SampleOrder::shuffled : SampleOrder::streams;
  order.lanes = train.batch;
  sampler_ = std::make_unique<Sampler>(data_.train, order);
  check_same_on_all_ranks(session.world(), "data",
                          fmt::format("{} training tokens\n{} validation tokens\n{} kinds of tokens\n",
                                      total_tokens(data_.train), total_tokens(data_.valid), data_.vocab_size));
  if (!data_.valid.empty()) valid_ = std::make_unique<EvalWindows>(data_.valid, train.seq);

  if (train.async_checkpoint == AsyncCheckpoint::on && options.run.memory_limit > 0 &&
      session.engine().exec().device().kind == DeviceKind::cpu)
    fail_user(
        "--async-checkpoint: found on, but --memory-limit leaves no place for a copy on the CPU; auto or off would "
        "be right");
  const LmConfig config = make_lm_config(options.model, train.seq, data_.vocab_size);
  sharding_ = plan_sharding(options.layout, config, {train.seq, train.batch}, session.mesh());
  built_ = build_model(config, session.mesh(), sharding_);
  compute_ = session.compute();
  options_.run.dtype = compute_ == DType::bf16 ? DTypeChoice::bf16 : DTypeChoice::f32;
  config_ = config_text(options_);
  ExecContext& exec = session.engine().exec();
  const StepOptions step = make_step_options(options_, session.mesh(), compute_, sharding_);
  const auto bucket_bytes = static_cast<std::size_t>(options.layout.bucket_mb * 1048576.0);
  check_memory(config, step, bucket_bytes);
  allocate_parameters(exec, built_->store, session.mesh(), step.buckets.zero, bucket_bytes);
  optimizer_ = std::make_unique<Optimizer>(make_optimizer_spec(options.optim), built_->store, exec);
  schedule_ = make_schedule(options.schedule, train.steps);
  state_.seed = options.run.seed;
  state_.epoch_samples = sampler_->epoch_samples();
  start_or_resume();
  open_outputs();

  training_ = std::make_unique<TrainingStep>(session.worker(), *built_, *optimizer_, *sampler_, step);
}

Trainer::~Trainer() = default;

// Before the first allocation.
void Trainer::check_memory(const LmConfig& config, const StepOptions& step, std::size_t bucket_bytes) {
  if (options_.run.memory_limit == 0) return;
  Engine& engine = session_.engine();
  Mesh& mesh = session_.mesh();
  const MeshSizes sizes{mesh.size(Axis::pp), mesh.size(Axis::dp), mesh.size(Axis::sp), mesh.size(Axis::tp)};
  const MemoryPlan plan{config,
                        make_optimizer_spec(options_.optim),
                        step,
                        bucket_bytes,
                        sizes,
                        session_.mpi().rank(),
                        engine.exec().device().kind,
                        engine.device().facts(),
                        engine.exec().threads(),
                        valid_ ? sequences_at_a_time(evaluation_options(), *valid_, sizes.dp) : 0,
                        step.replay == StepReplay::automatic && engine.exec().device().kind != DeviceKind::cpu &&
                            mesh.comm({Axis::pp, Axis::dp, Axis::sp, Axis::tp}).recordable()};
  run_on_all(session_.world(), [&] {
    if (const std::string misfit = memory_misfit(plan, options_.run.memory_limit); !misfit.empty())
      throw UserError(misfit);
  });
}

std::filesystem::path Trainer::find_start() {
  // Rank 0's view counts: on a shared file system others may see a rename later.
  return from_first_rank(session_.world(), [&]() -> std::string {
    if (std::filesystem::exists(checkpoints_)) {
      take_folder();
      recover_folder(checkpoints_);
    }
    const auto own = list_checkpoints(checkpoints_);
    checkpoints_found_ = own.size();
    if (options_.run.resume == ResumeChoice::none && !own.empty())
      fail_user("--out: {} holds checkpoints, the last is {}; another folder, or --resume auto, would be right",
                options_.run.out, own.back().filename().string());
    if (options_.run.resume == ResumeChoice::path) return find_checkpoint(options_.run.resume_path).string();
    return options_.run.resume == ResumeChoice::automatic && !own.empty() ? own.back().string() : std::string();
  });
}

// What remains of a job that was killed may still be writing.
void Trainer::take_folder() {
  constexpr double patience = 10;
  if (lock_) return;
  lock_ = std::make_unique<RunLock>(options_.run.out, patience);
}

void Trainer::start_or_resume() {
  started_from_ = find_start();
  if (started_from_.empty()) {
    built_->store.initialize(session_.engine().exec(), options_.run.seed);
    return;
  }
  const CheckpointIndex index = read_index(session_.world(), started_from_);
  const Options before = parse_config("train", index.config, started_from_.string());
  check_same_model(options_, before, started_from_.string());
  // Imported weights: nothing was trained here yet, so that data, seed and optimizer are this run's.
  const bool trained = index.state.epoch_samples > 0;
  from_first_rank(session_.world(), [&] {
    check_tokens(dataset_options(options_.data), started_from_,
                 trained || built_->model->config().vocab <= byte_tokens);
    return std::string();
  });
  load_checkpoint(session_.world(), index, started_from_,
                  {session_.engine().exec(), built_->store, trained ? optimizer_.get() : nullptr});
  if (!trained) return;
  if (index.state.seed != options_.run.seed)
    fail_user("--seed: found {}, {} was trained with {}; the same seed would be right", options_.run.seed,
              started_from_.string(), index.state.seed);
  if (index.state.epoch_samples != sampler_->epoch_samples())
    fail_user(
        "--resume: {} stands at a sample of an order with {} samples an epoch, here there are {}; the same --data, "
        "--seq, "
        "--sampler and, with streams, --batch would be right",
        started_from_.string(), index.state.epoch_samples, sampler_->epoch_samples());
  const DTypeChoice dtype = before.run.dtype;
  if (session_.main_rank() && dtype != DTypeChoice::automatic && dtype != options_.run.dtype)
    log_warning("{} was trained in {}, from here on it is {} (--dtype)", started_from_.string(), name_of(dtype),
                name_of(options_.run.dtype));
  state_ = index.state;
  if (started_from_.parent_path() == checkpoints_) saved_step_ = state_.step;
}

bool Trainer::validation_is_due() const { return validates_after(state_.step); }

double Trainer::elapsed() const { return seconds_now() - began_; }

// Whether the time that is left is needed for saving and `seconds` of other work.
bool Trainer::time_is_up(double seconds) const {
  if (options_.train.max_time <= 0) return false;
  const auto tensors = static_cast<double>(1 + optimizer_->moments().size());
  const double bytes = 4 * tensors * static_cast<double>(built_->store.global_numel());
  const double save = longest_save_ > 0 ? 2 * longest_save_ : bytes / bytes_saved_per_second;
  return elapsed() + std::max(1.0, save) + seconds > options_.train.max_time;
}

void Trainer::check_skipped(const StepResult& result) {
  if (!result.skipped) {
    state_.skipped_in_a_row = 0;
    return;
  }
  ++state_.skipped_in_a_row;
  const std::string where = training_->find_nonfinite(result);
  if (progress_) progress_->note(fmt::format("step {}: {} is not finite, the step is skipped", state_.step, where));
  if (state_.skipped_in_a_row <= options_.train.nonfinite_limit) return;
  // All ranks fail here: what they are saving is good.
  finish_saving();
  fail("step {}: {} is not finite, and so were the {} steps before it (--nonfinite-limit {})", state_.step, where,
       state_.skipped_in_a_row - 1, options_.train.nonfinite_limit);
}

bool Trainer::is_due(std::int64_t step, std::int64_t every) const { return every > 0 && step % every == 0; }

bool Trainer::validates_after(std::int64_t step) const {
  return step == options_.train.steps || is_due(step, options_.train.valid_every);
}

// Whether something looks at the parameters after it.
bool Trainer::pauses_after(std::int64_t step) const {
  return validates_after(step) || is_due(step, options_.train.checkpoint_every);
}

void Trainer::start_step() {
  const std::int64_t ahead = training_->in_flight(), step = state_.step + ahead + 1;
  const double upcoming = validates_after(step) ? longest_validation_ : 0;
  // Those in flight, this one, those that begin before its result is seen, and one to spare.
  const std::int64_t after = session_.engine().device().asynchronous() ? TrainingStep::most_in_flight - 1 : 0;
  const auto steps = static_cast<double>(ahead + 1 + after + 1);
  // Ranks' clocks differ, so that rank 0's decides about the time limit.
  const bool stop = stop_signal() != 0 || (session_.main_rank() && time_is_up(steps * longest_step_ + upcoming));
  steps_begun_.push_back(seconds_now());
  if (ahead == 0) exposed_before_ = session_.log().exposed_seconds();
  training_->start(step, state_.next_sample + ahead * options_.train.batch, schedule_.rate(step),
                   {.stop = stop, .saving = save_ && save_->busy()});
}

bool Trainer::step() {
  // The host is a step ahead of a device that works by itself; while steps are skipped it waits, to see what is wrong.
  const bool ahead = session_.engine().device().asynchronous() && state_.skipped_in_a_row == 0;
  const int wanted = ahead ? TrainingStep::most_in_flight : 1;
  while (training_->in_flight() < wanted) {
    const std::int64_t last = state_.step + training_->in_flight();
    if (training_->in_flight() > 0 && pauses_after(last)) break;
    start_step();
  }
  bool stop = take_result();
  while (stop && training_->in_flight() > 0) take_result();
  return stop;
}

bool Trainer::take_result() {
  const StepResult result = training_->finish();
  const double now = seconds_now();
  // A step that was started while the one before it ran has its time from that one's end.
  const double seconds = now - std::max(steps_begun_.front(), result_taken_);
  steps_begun_.pop_front();
  result_taken_ = now;
  ++state_.step;
  state_.next_sample += options_.train.batch;
  state_.tokens += options_.train.batch * options_.train.seq;
  state_.applied = result.applied;
  longest_step_ = std::max(longest_step_, seconds);
  const double exposed = session_.log().exposed_seconds();
  report(result, seconds, schedule_.rate(state_.step), (exposed - exposed_before_) * 1e3);
  exposed_before_ = exposed;
  check_skipped(result);
  if (save_ && !result.notes.saving) go_on_saving();
  return result.notes.stop;
}

EvaluationOptions Trainer::evaluation_options() const {
  return {options_.train.micro_batch, options_.train.valid_tokens, compute_, sharding_};
}

void Trainer::validate() {
  if (!valid_) return;
  owes_validation_ = true;
  if (stopping_) return;
  session_.log().set_phase("validation");
  const double begin = seconds_now();
  const auto result = evaluate(session_.worker(), *built_->model, *valid_, evaluation_options(),
                               [&] { return stop_signal() != 0 || (session_.main_rank() && time_is_up(0)); });
  if (!result) {
    stopping_ = true;
    return;
  }
  owes_validation_ = false;
  longest_validation_ = std::max(longest_validation_, seconds_now() - begin);
  best_valid_ = std::min(best_valid_.value_or(result->loss), result->loss);
  if (!folder_) return;
  const ValidMetrics row{state_.step, result->loss, result->bits_per_byte, result->targets,
                         seconds_before_ + elapsed()};
  folder_->append(row);
  progress_->valid(row);
}

bool Trainer::saves_beside() const {
  const AsyncCheckpoint choice = options_.train.async_checkpoint;
  if (choice != AsyncCheckpoint::automatic) return choice == AsyncCheckpoint::on;
  // The copy would lie in the memory that is limited.
  return options_.run.memory_limit == 0 || session_.engine().exec().device().kind != DeviceKind::cpu;
}

void Trainer::save() {
  finish_saving();
  session_.log().set_phase("checkpoint", file_allowance_seconds);
  save_begun_ = seconds_now();
  if (stopping_ && !session_.mpi().all_alive(10))
    fail("stopped at step {} without saving: not all ranks are alive; checkpoints up to step {} stay", state_.step,
         std::max<std::int64_t>(0, saved_step_));
  training_->settle();
  // A checkpoint must not outlive the rows of its steps.
  if (folder_) folder_->flush();
  if (!snapshot_ && saves_beside()) snapshot_ = std::make_unique<SnapshotMemory>(session_.engine().device());
  const bool last = stopping_ || state_.step == options_.train.steps;
  save_is_good_ = state_.skipped_in_a_row == 0;
  save_ = std::make_unique<CheckpointSave>(session_.world(), last ? nullptr : snapshot_.get(), checkpoints_,
                                           CheckpointTarget{session_.engine().exec(), built_->store, optimizer_.get()},
                                           state_, config_, files());
  if (last || !snapshot_) finish_saving();
}

void Trainer::go_on_saving() {
  if (save_->advance()) saved();
}

void Trainer::finish_saving() {
  if (!save_) return;
  session_.log().set_phase("checkpoint", file_allowance_seconds);
  while (!save_->advance()) {
  }
  saved();
}

void Trainer::saved() {
  const std::unique_ptr<CheckpointSave> save = std::move(save_);
  longest_save_ = std::max(longest_save_, seconds_now() - save_begun_);
  save_error_ = save->error();
  if (!save_error_.empty()) {
    if (progress_)
      progress_->note(
          fmt::format("warning: step {} could not be saved: {}; earlier checkpoints stay", save->step(), save_error_));
    return;
  }
  saved_step_ = save->step();
  if (!folder_) return;
  try {
    folder_->drop_later_metrics();
    remove_checkpoints_after(checkpoints_, save->step());
    // After skipped steps this one's parameters may be no good: the last that were stay beside it.
    if (save_is_good_) prune_checkpoints(checkpoints_, options_.train.keep);
  } catch (const std::exception& failed) {
    progress_->note(fmt::format("warning: an old checkpoint could not be removed: {}", failed.what()));
  }
}

ExitStatus Trainer::run() {
  const TrainOptions& train = options_.train;
  if (owes_validation_) validate();
  if (owes_validation_ && progress_ && stop_signal() == 0)
    progress_->note("warning: one validation takes longer than --max-time leaves; a smaller --valid-tokens is needed");
  bool owes_save = false;
  while (state_.step < train.steps && !stopping_) {
    stopping_ = step();
    if (validation_is_due()) validate();
    // A step that was skipped may come from parameters that are no longer finite: not to be kept in place of good ones.
    owes_save = owes_save || is_due(state_.step, train.checkpoint_every);
    if (stopping_ || state_.step == train.steps || (owes_save && state_.skipped_in_a_row == 0)) {
      save();
      owes_save = false;
    }
  }
  finish_saving();
  if (saved_step_ != state_.step) save();
  finish_saving();
  return finish(state_.step < train.steps || owes_validation_ ? ExitStatus::stopped : ExitStatus::done);
}

ExitStatus Trainer::finish(ExitStatus status) {
  const bool saved = save_error_.empty();
  session_.log().set_phase("report", file_allowance_seconds);
  if (folder_) {
    progress_->finish();
    try {
      write_outcome(!saved ? "failed" : status == ExitStatus::done ? "done" : "stopped");
    } catch (const std::exception& failed) {
      progress_->note(fmt::format("warning: no report: {}", failed.what()));
    }
  }
  // A rank that is gone may take the others with it: none leaves before the report is written.
  session_.world().barrier().wait();
  if (!saved) fail("the last checkpoint could not be saved: {}", save_error_);
  if (status == ExitStatus::stopped && progress_)
    progress_->note(fmt::format("stopped at step {} after saving; the same command goes on from there", state_.step));
  return status;
}

}  // namespace weft
