#include "launcher/launch_output.hpp"

#include <algorithm>
#include <array>
#include <regex>
#include <utility>

namespace weft {
namespace {

// Open MPI draws 74 dashes.
constexpr std::size_t edge_width = 60;

bool only_dashes(std::string_view text) { return text.find_first_not_of('-') == std::string_view::npos; }

// What the ranks themselves have said better.
constexpr std::array<std::string_view, 4> repeats = {"non-zero exit", "non-zero status", "MPI_ABORT was invoked",
                                                     "mpirun noticed that process rank"};

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

}  // namespace

void StarterOutput::feed(std::string_view text) {
  line_start_ = true;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::string_view piece = text.substr(0, newline == std::string_view::npos ? text.size() : newline + 1);
    text.remove_prefix(piece.size());
    const bool whole = piece.back() == '\n';
    const bool may_be_edge =
        (line_start_ || !held_.empty()) && only_dashes(piece.substr(0, piece.size() - (whole ? 1 : 0)));
    if (in_box_ || may_be_edge) {
      held_ += piece;
      if (whole) take_line(std::exchange(held_, {}));
    } else {
      forward_(std::exchange(held_, {}) + std::string(piece));
    }
    line_start_ = whole;
  }
}

void StarterOutput::take_line(std::string_view line) {
  const std::string_view bare = line.substr(0, line.size() - 1);
  if (bare.size() >= edge_width && only_dashes(bare)) {
    if (in_box_) end_box();
    in_box_ = !in_box_;
  } else if (in_box_) {
    box_ += line;
  } else {
    forward_(line);
  }
}

void StarterOutput::end_box() {
  const std::string box = std::exchange(box_, {});
  const std::string line = one_line(box);
  static const std::regex killed(R"(process rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+))");
  if (std::smatch match; std::regex_search(line, match, killed) && !killed_)
    killed_ = KilledRank{std::stoi(match[1]), match[2], std::stoi(match[3])};
  const bool known =
      std::ranges::any_of(repeats, [&](std::string_view text) { return line.find(text) != std::string::npos; });
  if (!known) forward_(box);
}

void StarterOutput::finish() {
  if (in_box_) {
    box_ += std::exchange(held_, {});
    end_box();
    in_box_ = false;
  }
  if (!held_.empty()) forward_(std::exchange(held_, {}));
}

}  // namespace weft
