#include "launcher/launch_run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "launcher/environment.hpp"
#include "launcher/processes.hpp"
#include "launcher/ranks.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/signals.hpp"
#include "parallel/comm/flight_recorder.hpp"

namespace weft {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  int get() const { return value_; }
  void reset() {
    if (value_ >= 0) ::close(value_);
    value_ = -1;
  }

 private:
  int value_;
};

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD}) sigaddset(&set, signal);
  return set;
}

// Blocks the watched signals, so that they wait in a descriptor, for the time of a launch.
class SignalBlock {
 public:
  SignalBlock() {
    const sigset_t set = watched_signals();
    sigprocmask(SIG_BLOCK, &set, &before_);
    descriptor_ = Descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalBlock() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  int descriptor() const { return descriptor_.get(); }
  const sigset_t& before() const { return before_; }

 private:
  sigset_t before_{};
  Descriptor descriptor_;
};

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

/// Where a rank was when it was looked at.
struct RankSign {
  std::int64_t step = -1;
  std::string phase;
  std::int64_t latest_collective = 0;  ///< when it began and ended
  bool at_files = false;
  bool operator==(const RankSign&) const = default;
};

// By rank, of the processes among `ranks` that keep a record in `flight`.
std::map<int, RankSign> read_signs(const std::filesystem::path& flight, const std::vector<pid_t>& ranks) {
  std::map<int, RankSign> signs;
  std::error_code none;  // no folder, no signs
  for (const auto& entry : std::filesystem::directory_iterator(flight, none)) {
    try {
      const FlightRecord record = read_flight_record(entry.path());
      // Records of earlier and larger jobs stay in the folder.
      if (record.host != host_name() || std::ranges::find(ranks, record.pid) == ranks.end()) continue;
      RankSign sign{record.step, record.phase, 0, false};
      if (!record.entries.empty())
        sign.latest_collective = record.entries.back().begun_ns + record.entries.back().ended_ns;
      sign.at_files = record.phase == "checkpoint" || record.phase == "start" || record.phase == "report";
      signs[record.rank] = sign;
    } catch (const UserError&) {  // another file
    }
  }
  return signs;
}

// What a killed rank was doing, from its flight record; empty where it kept none in this job. (mpirun does not say its
// process: some versions print 0.)
std::string last_words(const std::filesystem::path& flight, int rank, std::int64_t began_ns) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(flight, none)) {
    try {
      const FlightRecord record = read_flight_record(entry.path());
      if (record.rank == rank && record.heartbeat_ns >= began_ns) return doing_text(record);
    } catch (const UserError&) {  // another file
    }
  }
  return {};
}

class Job {
 public:
  Job(const LaunchPlan& plan, const StopPatience& patience);
  ~Job();
  ExitStatus run();

 private:
  void start();
  void take_signals();
  void take_output();
  void reap();
  void pass_stop_on();
  void watch_clock();
  bool ranks_move();
  void kill_all(const std::string& why);
  std::vector<pid_t> local_ranks() const;
  void remember_namespace();
  void clean_up();

  const LaunchPlan& plan_;
  StopPatience patience_;
  SignalBlock signals_;
  Descriptor output_;
  StarterOutput starter_output_;
  pid_t starter_ = -1;
  bool ended_ = false;
  int wait_status_ = 0;
  std::int64_t began_ns_ = epoch_nanoseconds();
  double stop_at_ = 0;   ///< when the first signal came; 0: none
  double moved_at_ = 0;  ///< when ranks were last seen to go on after it
  std::map<int, RankSign> signs_;
  double killed_at_ = 0;
  bool starter_told_ = false;
  std::set<pid_t> told_;
  std::string namespace_;  ///< the job's name in the names of its shared memory
};

Job::Job(const LaunchPlan& plan, const StopPatience& patience)
    : plan_(plan), patience_(patience), starter_output_(write_all) {
  // Ranks whose mpirun was killed become this process's children, so that it can find them.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  // Who reads the output may leave before the job ends.
  ::signal(SIGPIPE, SIG_IGN);
  start();
}

Job::~Job() {
  if (starter_ > 0 && !ended_) ::kill(-starter_, SIGKILL);
  clean_up();
}

void Job::start() {
  int ends[2];
  int problem[2];
  if (::pipe2(ends, O_CLOEXEC) != 0 || ::pipe2(problem, O_CLOEXEC) != 0) fail("no pipe: {}", std::strerror(errno));
  output_ = Descriptor(ends[0]);
  Descriptor write_end(ends[1]);
  Descriptor problem_read(problem[0]);
  Descriptor problem_write(problem[1]);
  std::vector<char*> arguments;
  for (const std::string& argument : plan_.arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  starter_ = ::fork();
  if (starter_ < 0) fail("cannot fork: {}", std::strerror(errno));
  if (starter_ == 0) {
    // A group of its own: the terminal's Ctrl-C comes to this process alone. If this process is killed, the job ends
    // too.
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);
    sigprocmask(SIG_SETMASK, &signals_.before(), nullptr);
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    ::dup2(write_end.get(), STDERR_FILENO);
    for (const auto& [name, value] : plan_.variables) ::setenv(name.c_str(), value.c_str(), 1);
    ::execvp(arguments[0], arguments.data());
    const int error = errno;
    const ssize_t written = ::write(problem_write.get(), &error, sizeof error);
    ::_exit(written == sizeof error ? 127 : 126);
  }
  ::setpgid(starter_, starter_);
  problem_write.reset();
  int error = 0;
  if (::read(problem_read.get(), &error, sizeof error) == sizeof error) {
    ::waitpid(starter_, nullptr, 0);
    starter_ = -1;
    if (error == ENOENT && !plan_.alone)
      fail("`{}` was not found: install an MPI (Debian: openmpi-bin) or load its module", plan_.arguments.front());
    fail("cannot run `{}`: {}", plan_.arguments.front(), std::strerror(error));
  }
}

std::vector<pid_t> Job::local_ranks() const {
  if (plan_.alone) return ended_ ? std::vector<pid_t>() : std::vector{starter_};
  // mpirun's other children are its launch agents (ssh), which must not get signals.
  std::vector<pid_t> ranks;
  for (const pid_t child : children_of(starter_))
    if (variable_of(child, "OMPI_COMM_WORLD_RANK")) ranks.push_back(child);
  return ranks;
}

void Job::remember_namespace() {
  if (!namespace_.empty() || ended_) return;
  for (const pid_t rank : local_ranks())
    if (const auto name = variable_of(rank, job_variable)) namespace_ = *name;
}

void Job::take_signals() {
  signalfd_siginfo info;
  while (::read(signals_.descriptor(), &info, sizeof info) == sizeof info) {
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD) continue;
    if (stop_at_ == 0) {
      stop_at_ = moved_at_ = seconds_now();
      ranks_move();
      say_error("launch", fmt::format("{}: ranks save and stop{}", signal_name(signal),
                                      signal == SIGINT ? " (again to kill them)" : ""));
    } else if (signal == SIGINT || signal == SIGTERM) {
      kill_all(fmt::format("a second {}", signal_name(signal)));
    }
  }
}

void Job::pass_stop_on() {
  if (stop_at_ == 0 || ended_ || killed_at_ > 0) return;
  for (const pid_t rank : local_ranks())
    if (!told_.contains(rank) && listens_to(rank, SIGUSR1) && ::kill(rank, SIGUSR1) == 0) told_.insert(rank);
  // The starter hands it to the ranks of other hosts; they have come as far as those of this host.
  const bool ready = told_.size() == local_ranks().size() && listens_to(starter_, SIGUSR1);
  if (!plan_.local && !starter_told_ && ready) starter_told_ = ::kill(starter_, SIGUSR1) == 0;
}

void Job::kill_all(const std::string& why) {
  if (killed_at_ > 0) return;
  killed_at_ = seconds_now();
  say_error("launch", fmt::format("{}: ranks are killed", why));
  // mpirun may crash over a signal while it notices dead ranks, so each case gets one of the two.
  if (plan_.local)
    for (const pid_t rank : local_ranks()) ::kill(rank, SIGKILL);
  else
    ::kill(starter_, SIGTERM);
}

void Job::watch_clock() {
  const double now = seconds_now();
  if (stop_at_ > 0 && killed_at_ == 0 && now - moved_at_ > patience_.seconds && !ranks_move())
    kill_all(fmt::format("ranks did not stop within {:.0f} s", now - stop_at_));
  // mpirun needs about two seconds to give up on dead ranks.
  if (killed_at_ > 0 && now - killed_at_ > 5) ::kill(-starter_, SIGKILL);
}

// Whether a rank of this host has gone on or ended since it was last looked at, or is at files.
bool Job::ranks_move() {
  const double now = seconds_now();
  std::map<int, RankSign> signs = read_signs(patience_.flight, local_ranks());
  const bool moves = signs != signs_;
  const bool at_files = std::ranges::any_of(signs, [](const auto& sign) { return sign.second.at_files; });
  signs_ = std::move(signs);
  if (moves) moved_at_ = now;
  return moves || (at_files && now - moved_at_ < file_allowance_seconds);
}

void Job::take_output() {
  char buffer[1 << 14];
  const ssize_t count = ::read(output_.get(), buffer, sizeof buffer);
  if (count > 0)
    starter_output_.feed({buffer, static_cast<std::size_t>(count)});
  else if (count == 0 || errno != EINTR)
    output_.reset();
}

void Job::reap() {
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != starter_) continue;
    ended_ = true;
    wait_status_ = status;
  }
}

ExitStatus Job::run() {
  while (!ended_) {
    pollfd waits[2] = {{signals_.descriptor(), POLLIN, 0}, {output_.get(), POLLIN, 0}};
    const bool hurried = stop_at_ > 0 || namespace_.empty();
    ::poll(waits, 2, hurried ? 100 : 1000);
    if (waits[1].revents != 0) take_output();
    take_signals();
    reap();
    remember_namespace();
    pass_stop_on();
    watch_clock();
  }
  clean_up();
  // Nobody is left who could write.
  while (output_.get() >= 0) {
    pollfd wait = {output_.get(), POLLIN, 0};
    if (::poll(&wait, 1, 500) <= 0) break;
    take_output();
  }
  starter_output_.finish();
  if (killed_at_ > 0) return ExitStatus::failed;
  std::string why = explain_status(wait_status_, plan_.arguments.front(), starter_output_.killed());
  if (const auto& killed = starter_output_.killed(); killed && !why.empty())
    if (const std::string doing = last_words(patience_.flight, killed->rank, began_ns_); !doing.empty())
      why += "; it was in " + doing;
  if (!why.empty()) say_error("launch", why);
  return map_status(wait_status_);
}

void Job::clean_up() {
  for (int round = 0; round < 20; ++round) {
    const std::vector<pid_t> left = descendants_of(::getpid());
    if (left.empty()) break;
    for (const pid_t process : left) ::kill(process, SIGKILL);
    while (::waitpid(-1, nullptr, WNOHANG) > 0) ::usleep(1000);
    ::usleep(10000);
  }
  if (namespace_.empty()) return;
  const std::string host = host_name();
  const std::string prefix =
      fmt::format("vader_segment.{}.{}.{:x}.", host, ::geteuid(), std::strtoull(namespace_.c_str(), nullptr, 10));
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", error))
    if (entry.path().filename().string().starts_with(prefix)) std::filesystem::remove(entry.path(), error);
  const auto session = std::filesystem::temp_directory_path(error) / fmt::format("ompi.{}.{}", host, ::geteuid()) /
                       fmt::format("pid.{}", starter_);
  std::filesystem::remove_all(session, error);
}

}  // namespace

ExitStatus map_status(int wait_status) {
  if (!WIFEXITED(wait_status)) return ExitStatus::failed;
  switch (WEXITSTATUS(wait_status)) {
    case 0: return ExitStatus::done;
    case 2: return ExitStatus::user_error;
    case 75: return ExitStatus::stopped;
    default: return ExitStatus::failed;
  }
}

std::string explain_status(int wait_status, const std::string& starter, const std::optional<KilledRank>& killed) {
  if (WIFSIGNALED(wait_status)) return fmt::format("{} was killed by {}", starter, signal_name(WTERMSIG(wait_status)));
  const int status = WEXITSTATUS(wait_status);
  if (killed && status > 128)
    return fmt::format("rank {} on {} was killed by {}", killed->rank, killed->host, signal_name(killed->signal));
  if (status > 128 && status < 128 + 65) return fmt::format("a rank was killed by {}", signal_name(status - 128));
  if (status == 0 || status == 2 || status == 3 || status == 75) return {};
  return fmt::format("{} ended with status {}", starter, status);
}

ExitStatus run_plan(const LaunchPlan& plan, const StopPatience& patience) { return Job(plan, patience).run(); }

}  // namespace weft
