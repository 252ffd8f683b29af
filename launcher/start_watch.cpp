#include "launcher/start_watch.hpp"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>

#include "launcher/start_report.hpp"

namespace weft {

StartWatch::StartWatch(double seconds, std::function<void()> late) {
  if (seconds <= 0) return;
  thread_ = std::jthread([seconds, late = std::move(late)](const std::stop_token& stop) {
    ::pthread_setname_np(::pthread_self(), std::string(start_thread_name).c_str());
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    const bool over =
        changed.wait_for(lock, stop, std::chrono::duration<double>(seconds), [&] { return stop.stop_requested(); });
    if (!over) late();
  });
}

}  // namespace weft
