// Text that every machine with a C++ compiler has: the headers of the standard library.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace weft {

struct HeaderCorpusOptions {
  double valid_fraction = 0.1;       ///< of the files, chosen by the hash of their path below the folder given
  double largest_shared_part = 0.5;  ///< a held-out file that shares more of its telling lines is trained on
};

/// Files as they are, one after the other, in byte order of their paths; the validation files are held out whole.
struct HeaderCorpus {
  std::string train;
  std::string valid;
  std::vector<std::filesystem::path> train_files;
  std::vector<std::filesystem::path> valid_files;
};

/// All text files below `folders`; of files with equal content only the first. Missing folders are passed over; throws
/// UserError when nothing is found.
HeaderCorpus collect_headers(const std::vector<std::filesystem::path>& folders,
                             const HeaderCorpusOptions& options = {});

/// The folders of the newest C++ standard library below `include`: include/c++/N and include/ARCH/c++/N.
std::vector<std::filesystem::path> standard_header_folders(const std::filesystem::path& include = "/usr/include");

}  // namespace weft
