#include "core/data/header_corpus.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <system_error>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.hpp"
#include "core/io/checksum.hpp"
#include "core/io/mapped_file.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

std::uint64_t hash_of(std::string_view text) { return checksum(std::as_bytes(std::span(text.data(), text.size()))); }

struct Header {
  fs::path path;
  std::string below;  ///< the path below its folder
  std::string text;
  bool held_out = false;
  std::vector<std::uint64_t> lines = {};  ///< hashes of its telling lines
};

void add_folder(const fs::path& folder, std::vector<Header>& headers) {
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    std::error_code unreadable;
    if (!entries->is_regular_file(unreadable) || entries->file_size(unreadable) == 0 || unreadable) continue;
    const MappedFile file(entries->path());
    std::string text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (text.find('\0') != std::string::npos) continue;
    headers.push_back(
        {entries->path(), entries->path().lexically_relative(folder).generic_string(), std::move(text), false, {}});
  }
}

void remove_equal(std::vector<Header>& headers) {
  std::sort(headers.begin(), headers.end(),
            [](const Header& a, const Header& b) { return std::tie(a.below, a.path) < std::tie(b.below, b.path); });
  std::unordered_set<std::uint64_t> seen;
  std::erase_if(headers, [&](const Header& header) { return !seen.insert(hash_of(header.text)).second; });
}

// Lines that say something (not braces, blank lines) and that few files share (not licences or common includes).
void find_telling_lines(std::vector<Header>& headers) {
  constexpr std::size_t shortest = 12;
  constexpr std::size_t most_files = 8;
  std::unordered_map<std::uint64_t, std::size_t> files_with;
  for (Header& header : headers) {
    std::string_view rest = header.text;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      while (!line.empty() && std::isspace(static_cast<unsigned char>(line.front()))) line.remove_prefix(1);
      while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.remove_suffix(1);
      if (line.size() >= shortest) header.lines.push_back(hash_of(line));
    }
    std::sort(header.lines.begin(), header.lines.end());
    header.lines.erase(std::unique(header.lines.begin(), header.lines.end()), header.lines.end());
    for (const std::uint64_t line : header.lines) ++files_with[line];
  }
  for (Header& header : headers)
    std::erase_if(header.lines, [&](std::uint64_t line) { return files_with[line] > most_files; });
}

// Takes back from validation each file that shares too many telling lines with one training file, until none does: a
// file taken back may itself be close to another that is still held out.
void take_back_copies(std::vector<Header>& headers, double largest_shared_part) {
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> owners;
  for (std::size_t i = 0; i < headers.size(); ++i)
    for (const std::uint64_t line : headers[i].lines) owners[line].push_back(i);
  bool changed = true;
  while (changed) {
    changed = false;
    for (Header& header : headers) {
      if (!header.held_out) continue;
      std::unordered_map<std::size_t, std::size_t> shared;
      for (const std::uint64_t line : header.lines)
        for (const std::size_t owner : owners[line])
          if (!headers[owner].held_out) ++shared[owner];
      const double most = largest_shared_part * static_cast<double>(header.lines.size());
      const bool is_copy = header.lines.empty() || std::any_of(shared.begin(), shared.end(), [&](const auto& entry) {
                             return static_cast<double>(entry.second) > most;
                           });
      if (is_copy) {
        header.held_out = false;
        changed = true;
      }
    }
  }
}

}  // namespace

HeaderCorpus collect_headers(const std::vector<fs::path>& folders, const HeaderCorpusOptions& options) {
  std::vector<Header> headers;
  for (const fs::path& folder : folders) add_folder(folder, headers);
  if (headers.empty())
    fail_user("no header files below {}: install a C++ standard library, or name a data file",
              folders.empty() ? "any folder" : "'" + folders[0].string() + "'");
  remove_equal(headers);
  for (Header& header : headers)
    header.held_out = static_cast<double>(hash_of(header.below)) < options.valid_fraction * 0x1p64;
  find_telling_lines(headers);
  take_back_copies(headers, options.largest_shared_part);

  HeaderCorpus corpus;
  for (const Header& header : headers) {
    (header.held_out ? corpus.valid : corpus.train) += header.text;
    (header.held_out ? corpus.valid_files : corpus.train_files).push_back(header.path);
  }
  return corpus;
}

std::vector<fs::path> standard_header_folders(const fs::path& include) {
  const auto newest = [](const fs::path& versions, std::vector<fs::path>& found) {
    std::error_code error;
    int best = -1;
    fs::path folder;
    for (fs::directory_iterator entries(versions, error); !error && entries != fs::directory_iterator();
         entries.increment(error)) {
      const std::string name = entries->path().filename().string();
      int version = -1;
      std::from_chars(name.data(), name.data() + name.size(), version);
      if (version > best && entries->is_directory()) {
        best = version;
        folder = entries->path();
      }
    }
    if (best >= 0) found.push_back(folder);
  };
  std::vector<fs::path> found;
  newest(include / "c++", found);
  std::vector<fs::path> machines;
  std::error_code error;
  for (fs::directory_iterator entries(include, error); !error && entries != fs::directory_iterator();
       entries.increment(error))
    if (fs::exists(entries->path() / "c++", error)) machines.push_back(entries->path() / "c++");
  std::sort(machines.begin(), machines.end());
  for (const fs::path& machine : machines) newest(machine, found);
  return found;
}

}  // namespace weft
