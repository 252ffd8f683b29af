#include "launcher/product_tables.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/data/random_tokens.hpp"
#include "core/io/atomic_file.hpp"
#include "launcher/model_setup.hpp"
#include "launcher/session.hpp"
#include "launcher/sharding_setup.hpp"
#include "launcher/standard_output.hpp"
#include "launcher/step_setup.hpp"
#include "parallel/comm/text_exchange.hpp"
#include "parallel/zero.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

ProductTable read_product_table(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!(text << file.rdbuf()))
    fail_user("--gemm-table: {} cannot be read; a file of `weft doctor --tune FILE` would be right", path.string());
  try {
    return parse_product_table(text.str());
  } catch (const Error& error) {
    fail_user("--gemm-table: {}: {}; a file of `weft doctor --tune FILE` would be right", path.string(), error.what());
  }
}

// A step as training takes it; what it computes is worthless. Returns how many sequences a rank takes at a time.
std::int64_t take_step(const Options& options, Session& session) {
  check_layout(options.layout);
  const LmConfig config = make_lm_config(options.model, options.train.seq, options.model.vocab);
  const ShardingOptions sharding =
      plan_sharding(options.layout, config, {options.train.seq, options.train.batch}, session.mesh());
  StepOptions step = make_step_options(options, session.mesh(), session.compute(), sharding);
  step.replay = StepReplay::off;
  ExecContext& exec = session.engine().exec();
  const auto built = build_model(config, session.mesh(), sharding);
  allocate_parameters(exec, built->store, session.mesh(), step.buckets.zero,
                      static_cast<std::size_t>(options.layout.bucket_mb * 1048576.0));
  built->store.initialize(exec, options.run.seed);
  Optimizer optimizer(make_optimizer_spec(options.optim), built->store, exec);
  const std::int64_t tokens = 4 * options.train.batch * (options.train.seq + 1);
  const Sampler sampler({std::make_shared<RandomTokens>(tokens, config.vocab)}, {.seq = options.train.seq});
  TrainingStep training(session.worker(), *built, optimizer, sampler, step);
  training.run(1, 0, 0);
  return step.micro_batch;
}

ProductTable gather_tables(Communicator& world, const ProductTable& own) {
  std::vector<ProductTable> tables;
  for (const std::string& text : all_gather_text(world, format_product_table(own)))
    tables.push_back(parse_product_table(text));
  return merge_product_tables(tables);
}

void say_what_was_found(const ProductTable& table, const Options& options, std::int64_t micro_batch, DType compute) {
  double us = 0, first_us = 0;
  int better = 0;
  for (const auto& [key, choice] : table.choices) {
    us += choice.us;
    first_us += choice.first_us;
    better += choice.algorithm != 0 ? 1 : 0;
  }
  print_output("{}: {} products of {} ({} kinds of tokens, {} sequences of {} at a time, {}) on {}\n", options.run.tune,
             table.choices.size(), options.model.name, options.model.vocab, micro_batch, options.train.seq,
             name_of(compute), table.device);
  print_output("{} have a better algorithm than the first; all once take {:.2f} ms in place of {:.2f}\n", better,
             us * 1e-3, first_us * 1e-3);
}

}  // namespace

ProductTable product_table_of_run(Communicator& world, const RunOptions& options) {
  const std::string text = from_first_rank(world, [&]() -> std::string {
    if (!options.gemm_table.empty()) return format_product_table(read_product_table(options.gemm_table));
    const fs::path left = fs::path(options.out) / run_table_name;
    std::error_code unseen;
    return fs::exists(left, unseen) ? format_product_table(read_product_table(left)) : "";
  });
  return text.empty() ? ProductTable() : parse_product_table(text);
}

ExitStatus tune_products(const Options& options) {
  return with_session(options, [&](Session& session) {
    // Trying all algorithms of the first step takes longer than a step.
    session.log().set_phase("tune", 600);
    if (session.engine().exec().device().kind == DeviceKind::cpu)
      fail_user(
          "--tune: this rank computes on the CPU, whose products have one algorithm; --device cuda on a machine "
          "with a GPU would be right");
    const std::int64_t micro_batch = take_step(options, session);
    Device& device = session.engine().device();
    const ProductTable own = device.measured_products();
    if (own.choices.empty())
      fail_user("--tune: products on {} have one algorithm; a GPU would be right", device.facts().name);
    const ProductTable table = gather_tables(session.world(), own);
    if (session.main_rank()) {
      AtomicFile file(options.run.tune);
      file.write(format_product_table(table));
      file.commit();
      say_what_was_found(table, options, micro_batch, session.compute());
    }
    return ExitStatus::done;
  });
}

}  // namespace weft
