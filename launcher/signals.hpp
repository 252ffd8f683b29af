// USR1, TERM and INT as a flag that the training loop polls once a step.
#pragma once
#include <string_view>

namespace weft {

/// Catches USR1, TERM and INT from now on until the end of the program. A second TERM or INT gets the system's default
/// action (the process dies), so that a hung rank can be stopped by hand.
void catch_stop_signals();

/// The first stop signal that came in, 0 for none. Async-signal-safe.
int stop_signal();

/// "SIGTERM" and the like.
std::string_view signal_name(int signal);

}  // namespace weft
