#include "launcher/launch_plan.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "core/base/error.hpp"
#include "launcher/environment.hpp"
#include "launcher/placement.hpp"
#include "parallel/comm/mpi_runtime.hpp"

extern char** environ;

namespace weft {
namespace {

std::string output_of(const char* command) {
  struct Closer {
    void operator()(std::FILE* file) const { ::pclose(file); }
  };
  const std::unique_ptr<std::FILE, Closer> pipe(::popen(command, "r"));
  std::string text;
  char buffer[256];
  while (pipe && std::fgets(buffer, sizeof buffer, pipe.get())) text += buffer;
  return text;
}

int nodes_of(const Surroundings& around) {
  const auto found = around.variables.find("SLURM_JOB_NUM_NODES");
  return found == around.variables.end() ? 1 : std::max(1, std::atoi(found->second.c_str()));
}

// Open MPI's settings are the user's where he made them.
void suggest(LaunchPlan& plan, const Surroundings& around, const std::string& name, const std::string& value) {
  if (!around.has(name)) plan.variables[name] = value;
}

void suggest_open_mpi(LaunchPlan& plan, const Surroundings& around, bool crowded) {
  if (around.root) {
    suggest(plan, around, "OMPI_ALLOW_RUN_AS_ROOT", "1");
    suggest(plan, around, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
  }
  // Ranks bind themselves: the same placement under every starter, GPUs taken into account.
  suggest(plan, around, "OMPI_MCA_hwloc_base_binding_policy", "none");
  suggest(plan, around, "OMPI_MCA_rmaps_base_oversubscribe", "1");
  if (crowded) suggest(plan, around, "OMPI_MCA_mpi_yield_when_idle", "1");
  if (plan.local) {
    // Other transports are probed for hundreds of milliseconds and never win on one host.
    suggest(plan, around, "OMPI_MCA_pml", "ob1");
    suggest(plan, around, "OMPI_MCA_btl", "self,vader");
  } else {
    // A host that falls off the network is otherwise waited for for minutes.
    suggest(plan, around, "OMPI_MCA_oob_tcp_keepalive_time", "2");
    suggest(plan, around, "OMPI_MCA_oob_tcp_keepalive_intvl", "1");
    suggest(plan, around, "OMPI_MCA_oob_tcp_keepalive_probes", "3");
  }
}

}  // namespace

Surroundings look_around() {
  Surroundings around;
  around.topology = read_topology();
  around.root = ::geteuid() == 0;
  around.has_mpi = !mpi_library().empty();
  winsize size{};
  if (::isatty(STDERR_FILENO) && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0)
    around.terminal_columns = size.ws_col > 0 ? size.ws_col : 80;
  for (char** variable = environ; *variable; ++variable) {
    const std::string text(*variable);
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) around.variables[text.substr(0, equals)] = text.substr(equals + 1);
  }
  if (nodes_of(around) > 1) around.srun_with_pmix = output_of("srun --mpi=list 2>&1").find("pmix") != std::string::npos;
  around.job = fmt::format("weft-{}", ::getpid());
  return around;
}

LaunchPlan plan_launch(const LaunchOptions& options, const Surroundings& around,
                       const std::vector<std::string>& program) {
  LaunchPlan plan;
  if (!around.has_mpi && (options.ranks > 1 || !options.hostfile.empty()))
    fail_user("{}: found {}, but this build has no MPI (WEFT_MPI) and runs one rank",
              options.hostfile.empty() ? "-n" : "--hostfile",
              options.hostfile.empty() ? std::to_string(options.ranks) : options.hostfile);
  const int nodes = around.has_mpi ? nodes_of(around) : 1;
  const bool use_srun = nodes > 1 && around.srun_with_pmix && options.hostfile.empty();
  plan.local = nodes == 1 && options.hostfile.empty();
  if (!options.hostfile.empty() && !std::filesystem::is_regular_file(options.hostfile))
    fail_user("--hostfile: found `{}`, expected a readable file with a host a line", options.hostfile);

  const int cores = static_cast<int>(around.topology.cores.size());
  if (!around.has_mpi)
    plan.ranks = 1;
  else if (options.ranks > 0)
    plan.ranks = static_cast<int>(options.ranks);
  else if (!options.hostfile.empty())
    fail_user("-n is missing: with --hostfile say how many ranks to start");
  else
    plan.ranks = nodes * default_ranks(around.topology);
  const bool crowded = options.hostfile.empty() && plan.ranks > nodes * cores;
  // In a step Slurm itself has set the variable, for the step's own process.
  const bool user_binds = use_srun && around.has("SLURM_CPU_BIND") && !around.has("SLURM_STEP_ID");
  std::string share = std::to_string(options.cores_per_rank);
  if (plan.local)
    share = std::to_string(
        place_ranks(around.topology, plan.ranks, static_cast<int>(options.cores_per_rank)).front().cores);
  else if (user_binds)
    share = "0";
  else if (options.cores_per_rank == 0)
    share = launch_variable::equal_share;  // hosts may have different cores and numbers of ranks

  suggest(plan, around, launch_variable::cores_per_rank, share);
  if (around.terminal_columns > 0)
    plan.variables[launch_variable::terminal_columns] = std::to_string(around.terminal_columns);
  plan.variables[launch_variable::job] = around.job;
  if (plan.local) suggest(plan, around, "OMP_NUM_THREADS", share == "0" ? "1" : share);

  plan.alone = !around.has_mpi;
  if (plan.alone) {
    // Its arguments are all that there is.
  } else if (use_srun) {
    // srun hands its environment on by itself.
    plan.arguments = {"srun", "--mpi=pmix", "--kill-on-bad-exit=1", fmt::format("--ntasks={}", plan.ranks)};
    if (!user_binds) plan.arguments.push_back("--cpu-bind=none");
    // The step that this process runs in holds the cores.
    if (around.has("SLURM_STEP_ID")) plan.arguments.push_back("--overlap");
    if (crowded) suggest(plan, around, "OMPI_MCA_mpi_yield_when_idle", "1");
  } else {
    suggest_open_mpi(plan, around, crowded);
    plan.arguments = {"mpirun", "-n", std::to_string(plan.ranks)};
    if (!options.hostfile.empty()) plan.arguments.insert(plan.arguments.end(), {"--hostfile", options.hostfile});
    if (!plan.local)
      for (const auto& [name, value] : plan.variables)
        if (!name.starts_with("OMPI_")) plan.arguments.insert(plan.arguments.end(), {"-x", name});
  }
  plan.arguments.insert(plan.arguments.end(), program.begin(), program.end());
  return plan;
}

}  // namespace weft
