// weft train
#include "launcher/ranks.hpp"
#include "launcher/signals.hpp"
#include "launcher/trainer.hpp"

namespace weft {

ExitStatus run_train(const Options& options) {
  catch_stop_signals();
  return with_ranks(options, [&](MpiRuntime& mpi, CommLog& log) {
    Session session(options, mpi, log);
    return Trainer(options, session).run();
  });
}

}  // namespace weft
