// weft train
#include "launcher/product_tables.hpp"
#include "launcher/ranks.hpp"
#include "launcher/signals.hpp"
#include "launcher/trainer.hpp"

namespace weft {

ExitStatus run_train(const Options& options) {
  catch_stop_signals();
  return with_ranks(options, [&](MpiRuntime& mpi, CommLog& log) {
    Session session(options, mpi, log, product_table_of_run(mpi.world(), options.run));
    return Trainer(options, session).run();
  });
}

}  // namespace weft
