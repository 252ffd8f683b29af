#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>

#include "core/io/safetensors.hpp"
#include "tests/fuzz/exercise.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + rest;
}

std::string file_of(const std::string& header, std::size_t data_bytes) {
  return with_length(header.size(), header + std::string(data_bytes, 'd'));
}

struct Malformed {
  const char* name;
  std::string file;
  const char* message;  ///< a part of it
};

std::vector<Malformed> malformed_files() {
  const std::string a4 = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  std::string deep(200'000, '[');
  return {
      {"empty file", "", "too short"},
      {"seven bytes", "1234567", "too short"},
      {"header length above the limit", with_length(100'000'001, "{}"), "limit"},
      {"header length of all ones", with_length(~std::uint64_t{0}, "{}"), "limit"},
      {"header length above the file", with_length(3, "{}"), "does not fit"},
      {"empty header", with_length(0, ""), "does not begin"},
      {"header with a byte order mark", file_of("\xef\xbb\xbf{}", 0), "does not begin"},
      {"header is an array", file_of("[]", 0), "does not begin"},
      {"header is cut", file_of("{", 0), "not valid JSON"},
      {"something after the object", file_of("{}{}", 0), "not valid JSON"},
      {"invalid UTF-8", file_of("{\"\xff\":1}", 0), "not valid JSON"},
      {"NUL in the header", file_of(std::string("{\0}", 3), 0), "not valid JSON"},
      {"deep nesting", file_of("{\"a\":" + deep, 0), "'a' is an array"},
      {"tensor is a number", file_of(R"({"a":1})", 0), "'a' is 1, not an object"},
      {"tensor is null", file_of(R"({"a":null})", 0), "'a' is null"},
      {"tensor is a boolean", file_of(R"({"a":true})", 0), "'a' is a boolean"},
      {"tensor twice", file_of("{" + a4 + "," + a4 + "}", 4), "'a' appears twice"},
      {"tensor twice by escape",
       file_of("{" + a4 + R"(,"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "'a' appears twice"},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "__metadata__ appears twice"},
      {"metadata key twice", file_of(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "key 'k' twice"},
      {"metadata is a string", file_of(R"({"__metadata__":"x"})", 0), "__metadata__ is a string"},
      {"metadata holds a number", file_of(R"({"__metadata__":{"k":1}})", 0), "key 'k' is 1"},
      {"metadata holds an object", file_of(R"({"__metadata__":{"k":{}}})", 0), "key 'k' is an object"},
      {"unknown field", file_of(R"({"a":{"type":"F32"}})", 0), "unknown field 'type'"},
      {"field twice", file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
       "'dtype' twice"},
      {"no dtype", file_of(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), "no 'dtype'"},
      {"no shape", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), "no 'shape'"},
      {"no offsets", file_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "no 'data_offsets'"},
      {"unknown dtype", file_of(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4), "unknown dtype 'F33'"},
      {"dtype is a number", file_of(R"({"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", 4), "32 as its dtype"},
      {"dtype is an array", file_of(R"({"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})", 4),
       "an array as its dtype"},
      {"shape is a number", file_of(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4), "1 as its shape"},
      {"negative dim", file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), "-1 in its shape"},
      {"fractional dim", file_of(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4), "1.0 in its shape"},
      {"nested shape", file_of(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4),
       "an array in its shape"},
      {"dim above int64", file_of(R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4),
       "overflow"},
      {"dim above uint64", file_of(R"({"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,4]}})", 4),
       "in its shape"},
      {"product wraps to 4", file_of(R"({"a":{"dtype":"U8","shape":[4611686018427387905,4],"data_offsets":[0,4]}})", 4),
       "overflow"},
      {"element size overflows",
       file_of(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0), "overflow"},
      {"empty with overflowing strides",
       file_of(R"({"a":{"dtype":"U8","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0]}})", 0),
       "overflow"},
      {"seven dims", file_of(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1),
       "more than 6 dims"},
      {"one offset", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4), "1 data_offsets"},
      {"three offsets", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4), "more than two"},
      {"offsets reversed", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4),
       "data_offsets are [4, 0]"},
      {"negative offset", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4),
       "-4 in its data_offsets"},
      {"size differs from the shape", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
       "= 8 bytes"},
      {"beyond the data", file_of("{" + a4 + "}", 3), "cut short"},
      {"far beyond the data",
       file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[18446744073709551611,18446744073709551615]}})", 4),
       "cut short"},
      {"overlap", file_of("{" + a4 + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})", 5),
       "'a' and 'b' overlap at byte 3"},
      {"same range", file_of("{" + a4 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), "overlap"},
      {"gap", file_of("{" + a4 + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})", 7), "bytes 4 to 5"},
      {"gap at the start", file_of(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3), "bytes 0 to 1"},
      {"bytes at the end", file_of("{" + a4 + "}", 6), "2 bytes after the last tensor"},
      {"data without tensors", file_of("{}", 1), "1 bytes after the last tensor"},
      {"newline in a name", file_of("{\"a\\nb\":1}", 0), "a\\x0ab"},
  };
}

TEST(SafetensorsMalformed, EachViolationIsOneLineThatNamesTheFileAndWhatWasFound) {
  const test::TempFolder folder;
  for (const Malformed& malformed : malformed_files()) {
    SCOPED_TRACE(malformed.name);
    test::write_text(folder / "x.safetensors", malformed.file);
    std::string message;
    try {
      SafetensorsReader(folder / "x.safetensors");
    } catch (const UserError& error) {
      message = error.what();
    }
    EXPECT_NE(message.find(malformed.message), std::string::npos) << "message: " << message;
    EXPECT_NE(message.find("x.safetensors"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 600u);
  }
}

TEST(SafetensorsMalformed, RandomMutationsAreReadOrRefusedButNeverCrash) {
  const std::string valid =
      file_of(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
              R"("b":{"dtype":"U8","shape":[3],"data_offsets":[24,27]},)"
              R"("c":{"dtype":"I64","shape":[1],"data_offsets":[27,35]}}   )",
              35);
  const std::string alphabet = "0123456789-.eE{}[]\",:abFUI\\u \n\xff";
  std::mt19937 random(7);
  const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random() % limit); };
  int accepted = 0;
  constexpr int rounds = 12'000;
  for (int round = 0; round < rounds; ++round) {
    std::string file = valid;
    for (std::size_t edits = 1 + below(4); edits > 0 && !file.empty(); --edits) {
      const std::size_t at = below(file.size());
      switch (below(7)) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = static_cast<char>(file[at] ^ (1 << below(8)));
          break;
        case 2:
          file[at] = alphabet[below(alphabet.size())];
          break;
        case 3:
          file.insert(at, 1, alphabet[below(alphabet.size())]);
          break;
        case 4:
          file.erase(at, 1 + below(4));
          break;
        case 5:
          file.insert(at, file.substr(below(file.size()), 1 + below(60)));
          break;
        default:
          file.resize(at);
          break;
      }
    }
    // Half of the time the length is right again, so that mutations reach what comes after the first checks.
    if (file.size() >= 43 && below(2) == 0) {
      const std::uint64_t length = file.size() - 43;
      std::memcpy(file.data(), &length, 8);
    }
    // A block of exactly this size, so that a sanitizer sees any byte read beyond it.
    const auto exact = std::make_unique<std::byte[]>(file.size());
    std::memcpy(exact.get(), file.data(), file.size());
    ASSERT_NO_THROW(accepted += test::exercise_safetensors({exact.get(), file.size()})) << "round " << round;
  }
  EXPECT_GT(accepted, rounds / 100) << "the mutations hardly reach the inner checks";
  EXPECT_LT(accepted, rounds / 2);
}

}  // namespace
}  // namespace weft
