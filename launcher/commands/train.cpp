// weft train
#include "launcher/product_tables.hpp"
#include "launcher/signals.hpp"
#include "launcher/trainer.hpp"

namespace weft {

ExitStatus run_train(const Options& options) {
  catch_stop_signals();
  return with_session(
      options, [&](Session& session) { return Trainer(options, session).run(); },
      [&](Communicator& world) { return product_table_of_run(world, options.run); });
}

}  // namespace weft
