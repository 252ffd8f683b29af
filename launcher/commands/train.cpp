// weft train
#include <filesystem>

#include "launcher/product_tables.hpp"
#include "launcher/ranks.hpp"
#include "launcher/signals.hpp"
#include "launcher/trainer.hpp"

namespace weft {

ExitStatus run_train(const Options& given) {
  catch_stop_signals();
  Options options = given;
  const std::filesystem::path table = std::filesystem::path(options.run.out) / run_table_name;
  std::error_code unseen;
  if (options.run.gemm_table.empty() && std::filesystem::exists(table, unseen)) options.run.gemm_table = table.string();
  return with_ranks(options, [&](MpiRuntime& mpi, CommLog& log) {
    Session session(options, mpi, log);
    return Trainer(options, session).run();
  });
}

}  // namespace weft
