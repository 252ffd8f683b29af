// Reads the sources and holds the ladder: core <- parallel <- models <- launcher, and what must never be.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Source {
  std::string path;  ///< from the root, "core/base/error.hpp"
  std::string text;  ///< without comments and the insides of strings
  std::vector<std::string> includes;
};

// Comments and string literals may name what code may not.
std::string strip(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "//") == 0) {
      while (i < text.size() && text[i] != '\n') ++i;
      out += '\n';
    } else if (text.compare(i, 2, "/*") == 0) {
      i = std::min(text.find("*/", i + 2), text.size() - 2) + 1;
    } else if (text.compare(i, 2, "R\"") == 0) {
      const std::size_t open = text.find('(', i);
      const std::string end = ")" + text.substr(i + 2, open - i - 2) + "\"";
      i = std::min(text.find(end, open), text.size()) + end.size() - 1;
      out += "\"\"";
    } else if (text[i] == '\'' && i > 0 && std::isalnum(static_cast<unsigned char>(text[i - 1]))) {
      out += '\'';  // a digit separator
    } else if (text[i] == '"' || text[i] == '\'') {
      const char quote = text[i];
      for (++i; i < text.size() && text[i] != quote; ++i)
        if (text[i] == '\\') ++i;
      out += {quote, quote};
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string> includes_of(const std::string& text) {
  static const std::regex pattern(R"re(^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"])re", std::regex::multiline);
  std::vector<std::string> includes;
  for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match)
    includes.push_back((*match)[1]);
  return includes;
}

Source make_source(std::string path, const std::string& text) {
  return {std::move(path), strip(text), includes_of(text)};
}

std::vector<Source> read_tree() {
  std::vector<Source> sources;
  const fs::path root = WEFT_SOURCE_DIR;
  for (const char* top : {"core", "parallel", "models", "launcher"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".cpp" && extension != ".hpp" && extension != ".cu" && extension != ".cuh") continue;
      std::ifstream file(entry.path());
      std::stringstream text;
      text << file.rdbuf();
      sources.push_back(make_source(fs::relative(entry.path(), root), text.str()));
    }
  }
  return sources;
}

bool below(const std::string& path, const std::string& folder) { return path.starts_with(folder + "/"); }

// What each room may include of Weft, itself apart. The longest room that a path lies in holds.
const std::map<std::string, std::vector<std::string>> may_include = {
    {"core/base", {}},
    {"core/tensor", {"core/base"}},
    {"core/kernels", {"core/base", "core/tensor/view.hpp"}},
    {"core/cpu", {"core/base", "core/kernels", "core/tensor/view.hpp", "core/tensor/caching_allocator.hpp"}},
    {"core/cuda",
     {"core/base", "core/kernels", "core/tensor/view.hpp", "core/tensor/caching_allocator.hpp", "parallel/comm"}},
    {"core/autograd", {"core/base", "core/tensor", "core/kernels"}},
    {"core/ops", {"core/base", "core/tensor", "core/kernels", "core/autograd"}},
    {"core/nn", {"core/base", "core/tensor", "core/kernels", "core/autograd", "core/ops"}},
    {"core/optim", {"core/base", "core/tensor", "core/kernels", "core/autograd", "core/ops", "core/nn"}},
    {"core/data", {"core/base", "core/io"}},
    {"core/io", {"core/base", "core/tensor"}},
    {"parallel/comm", {"core/base", "core/tensor/view.hpp", "core/kernels"}},
    {"parallel", {"core"}},
    {"models", {"core", "parallel"}},
    {"launcher", {"core", "parallel", "models"}},
};

std::string room_of(const std::string& path) {
  std::string best;
  for (const auto& [room, allowed] : may_include)
    if (below(path, room) && room.size() > best.size()) best = room;
  return best;
}

std::vector<std::string> wrong_includes(const Source& source) {
  std::vector<std::string> wrong;
  const std::string room = room_of(source.path);
  for (const std::string& include : source.includes) {
    const bool ours = include.starts_with("core/") || include.starts_with("parallel/") ||
                      include.starts_with("models/") || include.starts_with("launcher/") ||
                      include.starts_with("tests/");
    if (!ours || below(include, room)) continue;
    const auto& allowed = may_include.at(room);
    const bool fine = std::any_of(allowed.begin(), allowed.end(),
                                  [&](const std::string& place) { return include == place || below(include, place); });
    if (!fine) wrong.push_back(fmt::format("{} includes {}", source.path, include));
  }
  return wrong;
}

std::vector<std::string> wrong_libraries(const Source& source) {
  std::vector<std::string> wrong;
  for (const std::string& include : source.includes) {
    const bool mpi = include == "mpi.h" || include == "nccl.h";
    const bool cuda = include.starts_with("cuda") || include.starts_with("cudnn") || include.starts_with("cublas");
    if (mpi && below(source.path, "core") && !below(source.path, "core/cuda"))
      wrong.push_back(fmt::format("{} includes {}", source.path, include));
    if (mpi && below(source.path, "models")) wrong.push_back(fmt::format("{} includes {}", source.path, include));
    if (cuda && !below(source.path, "core/cuda")) wrong.push_back(fmt::format("{} includes {}", source.path, include));
  }
  return wrong;
}

std::vector<std::string> matches(const Source& source, const std::string& pattern) {
  const std::regex expression(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator match(source.text.begin(), source.text.end(), expression), end; match != end; ++match) {
    const auto line = 1 + std::count(source.text.begin(), source.text.begin() + match->position(), '\n');
    found.push_back(fmt::format("{}:{}: {}", source.path, line, match->str()));
  }
  return found;
}

// Only the launcher reads the environment or ends the process.
std::vector<std::string> wrong_process_calls(const Source& source) {
  if (below(source.path, "launcher")) return {};
  // What the launcher asks of a job's end, MPI_Abort does not come back from; the line after it is for the compiler.
  Source code = source;
  code.text = std::regex_replace(source.text, std::regex(R"((MPI_Abort\([^)]*\);\s*)std::abort\(\))"), "$1");
  return matches(
      code, R"((^|[^\w.>])(std::|::)?(getenv|secure_getenv|setenv|putenv|exit|_exit|quick_exit|abort|terminate)\s*\()");
}

// A model calls layers of parallel, never a communicator.
std::vector<std::string> wrong_model_calls(const Source& source) {
  if (!below(source.path, "models")) return {};
  std::vector<std::string> wrong =
      matches(source, R"([.>](all_reduce|all_gather|reduce_scatter|all_to_all|broadcast|exclusive_scan|barrier)\s*\()");
  for (const std::string& include : source.includes)
    if (include.starts_with("parallel/comm/")) wrong.push_back(fmt::format("{} includes {}", source.path, include));
  return wrong;
}

// Backends see views: no tensor, no tape.
std::vector<std::string> wrong_backend_names(const Source& source) {
  if (!below(source.path, "core/cpu") && !below(source.path, "core/cuda")) return {};
  return matches(source, R"(\b(Tensor|Tape|Variable)\b)");
}

std::vector<std::string> wrong_ifdefs(const Source& source) {
  if (below(source.path, "core/cuda")) return {};
  return matches(source, R"(#\s*(if|ifdef|ifndef|elif)\b[^\n]*(CUDA|NCCL|ROCM|HIP)\w*)");
}

using Rule = std::vector<std::string> (*)(const Source&);

std::vector<std::string> violations(Rule rule) {
  static const std::vector<Source> sources = read_tree();
  std::vector<std::string> all;
  for (const Source& source : sources)
    for (std::string& one : rule(source)) all.push_back(std::move(one));
  return all;
}

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(House, IncludesGoDownTheLadder) { EXPECT_THAT(violations(wrong_includes), IsEmpty()); }
TEST(House, CoreAndModelsDoNotKnowMpiNcclOrCuda) { EXPECT_THAT(violations(wrong_libraries), IsEmpty()); }
TEST(House, OnlyTheLauncherReadsTheEnvironmentOrEndsTheProcess) {
  EXPECT_THAT(violations(wrong_process_calls), IsEmpty());
}
TEST(House, ModelsDoNotCallCommunicators) { EXPECT_THAT(violations(wrong_model_calls), IsEmpty()); }
TEST(House, BackendsDoNotSeeTensorsOrTheTape) { EXPECT_THAT(violations(wrong_backend_names), IsEmpty()); }
TEST(House, NoIfdefForABackendOutsideIt) { EXPECT_THAT(violations(wrong_ifdefs), IsEmpty()); }

TEST(House, ReadsTheWholeTree) { EXPECT_GT(read_tree().size(), 50u); }

TEST(HouseRules, SeeAnIncludeThatGoesUp) {
  EXPECT_THAT(wrong_includes(make_source("core/ops/x.cpp", "#include \"parallel/mesh.hpp\"\n")),
              ElementsAre("core/ops/x.cpp includes parallel/mesh.hpp"));
  EXPECT_THAT(wrong_includes(make_source("parallel/comm/x.cpp", "  #  include \"core/autograd/tape.hpp\"\n")),
              SizeIs(1));
  EXPECT_THAT(wrong_includes(make_source("core/cpu/x.cpp", "#include \"core/tensor/tensor.hpp\"\n")), SizeIs(1));
  EXPECT_THAT(wrong_includes(make_source("models/x.cpp", "#include \"parallel/mesh.hpp\"\n#include <vector>\n")),
              IsEmpty());
}

TEST(HouseRules, SeeLibrariesWhereTheyMustNotBe) {
  EXPECT_THAT(wrong_libraries(make_source("core/base/x.cpp", "#include <mpi.h>\n")), SizeIs(1));
  EXPECT_THAT(wrong_libraries(make_source("parallel/comm/x.cpp", "#include <mpi.h>\n")), IsEmpty());
  EXPECT_THAT(wrong_libraries(make_source("parallel/x.cpp", "#include <cuda_runtime.h>\n")), SizeIs(1));
}

TEST(HouseRules, SeeProcessCallsButNotTheirNamesInCommentsOrStrings) {
  EXPECT_THAT(wrong_process_calls(make_source("core/x.cpp", "int a;\nauto v = std::getenv(\"X\");")), SizeIs(1));
  EXPECT_THAT(wrong_process_calls(make_source("core/x.cpp", "  abort();")), SizeIs(1));
  EXPECT_THAT(wrong_process_calls(make_source("parallel/comm/x.cpp", "MPI_Abort(c, 3);\n  std::abort();")), IsEmpty());
  EXPECT_THAT(wrong_process_calls(
                  make_source("core/x.cpp", "// exit(1)\nconst char* t = \"exit(1)\"; file.exit(1); on_exit(2);")),
              IsEmpty());
  EXPECT_THAT(wrong_process_calls(make_source("core/x.cpp", "int n = 1'000'000; exit(1);")), SizeIs(1));
  EXPECT_THAT(wrong_process_calls(make_source("launcher/x.cpp", "exit(1);")), IsEmpty());
}

TEST(HouseRules, SeeCollectivesInModelsAndTensorsInBackends) {
  EXPECT_THAT(wrong_model_calls(make_source("models/x.cpp", "comm.all_reduce(x).wait();")), SizeIs(1));
  EXPECT_THAT(wrong_backend_names(make_source("core/cpu/x.cpp", "void f(const Tensor& x);")), SizeIs(1));
  EXPECT_THAT(wrong_backend_names(make_source("core/cpu/x.cpp", "void f(View x); // a Tensor")), IsEmpty());
  EXPECT_THAT(wrong_ifdefs(make_source("core/ops/x.cpp", "#ifdef WEFT_CUDA\n")), SizeIs(1));
}

}  // namespace
