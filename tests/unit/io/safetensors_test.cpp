#include "core/io/safetensors.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/io/checksum.hpp"
#include "tests/unit/io/crash_file_system.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;

std::string raw_file(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}

template <class T>
std::vector<T> values(const View& view) {
  const T* data = view.as<T>();
  return {data, data + view.numel()};
}

TEST(Safetensors, EveryDtypeComesBackFromTheFileWithItsShapeAndMetadata) {
  const TempFolder folder;
  const std::vector<std::uint8_t> bytes = {1, 2, 255};
  const std::vector<float> floats = {1.5f, -2.0f, 3e38f, 0.0f, 1e-40f, 7.0f};
  const std::vector<bf16> halves = {bf16(1.0f), bf16(-2.5f), bf16(3.0f)};
  const std::vector<double> doubles = {1e300};
  const std::vector<std::int32_t> ints = {-1, 2};
  const std::vector<std::int64_t> longs = {-(std::int64_t{1} << 62), 5};
  const std::vector<std::uint16_t> shorts = {65535};
  const std::vector<SafetensorsSource> tensors = {
      {"bytes", View(bytes.data(), {3}, DType::u8)},     {"floats", View(floats.data(), {2, 1, 3}, DType::f32)},
      {"halves", View(halves.data(), {3}, DType::bf16)}, {"scalar", View(doubles.data(), {}, DType::f64)},
      {"ints", View(ints.data(), {2}, DType::i32)},      {"longs", View(longs.data(), {2}, DType::i64)},
      {"shorts", View(shorts.data(), {1}, DType::u16)},  {"empty", View(nullptr, {0, 4}, DType::f32)}};
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"step", "12"}, {"quote", "\"\n\\"}};
  const auto written = write_safetensors(folder / "t", tensors, metadata);

  const SafetensorsReader reader(folder / "t");
  EXPECT_EQ(reader.metadata(), metadata);
  ASSERT_EQ(reader.entries().size(), tensors.size());
  EXPECT_EQ(values<std::uint8_t>(reader.view("bytes")), bytes);
  EXPECT_EQ(values<float>(reader.view("floats")), floats);
  EXPECT_EQ(values<bf16>(reader.view("halves")), halves);
  EXPECT_EQ(values<double>(reader.view("scalar")), doubles);
  EXPECT_EQ(values<std::int32_t>(reader.view("ints")), ints);
  EXPECT_EQ(values<std::int64_t>(reader.view("longs")), longs);
  EXPECT_EQ(values<std::uint16_t>(reader.view("shorts")), shorts);
  EXPECT_EQ(reader.view("floats").shape, (Shape{2, 1, 3}));
  EXPECT_EQ(reader.view("scalar").shape.rank(), 0);
  EXPECT_EQ(reader.view("empty").numel(), 0);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(written[i].name, tensors[i].name);
    EXPECT_EQ(written[i].checksum, checksum(reader.bytes(reader.entry(tensors[i].name)))) << tensors[i].name;
    const auto address = reinterpret_cast<std::uintptr_t>(reader.bytes(reader.entry(tensors[i].name)).data());
    EXPECT_EQ(address % size_of(tensors[i].dtype), 0u) << tensors[i].name << " is not aligned in the file";
  }
}

TEST(Safetensors, TheFileHasTheFormatsLayout) {
  const TempFolder folder;
  const std::vector<float> floats = {1.0f, 2.0f};
  const std::vector<SafetensorsSource> tensors = {{"a.b", View(floats.data(), {1, 2}, DType::f32)}};
  write_safetensors(folder / "t", tensors, {{"k", "v"}});
  const std::string file = test::read_text(folder / "t");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  EXPECT_EQ((8 + length) % 64, 0u);
  ASSERT_EQ(file.size(), 8 + length + 8);
  const auto header = nlohmann::json::parse(file.substr(8, length));
  const auto expected =
      nlohmann::json::parse(R"({"__metadata__":{"k":"v"},"a.b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})");
  EXPECT_EQ(header, expected);
  EXPECT_EQ(std::memcmp(file.data() + 8 + length, floats.data(), 8), 0);
}

TEST(Safetensors, ACallbackWritesTheSameFileAsAViewInConsecutivePieces) {
  const TempFolder folder;
  std::vector<float> data(700'001);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const std::vector<SafetensorsSource> from_view = {{"x", View(data.data(), {700'001}, DType::f32)}};
  std::size_t next = 0;
  const auto fill = [&](std::size_t offset, std::span<std::byte> piece) {
    EXPECT_EQ(offset, next);
    next += piece.size();
    std::memcpy(piece.data(), reinterpret_cast<const std::byte*>(data.data()) + offset, piece.size());
  };
  const std::vector<SafetensorsSource> from_callback = {{"x", DType::f32, Shape{700'001}, fill}};
  const auto a = write_safetensors(folder / "a", from_view);
  const auto b = write_safetensors(folder / "b", from_callback);
  EXPECT_EQ(next, data.size() * 4);
  EXPECT_EQ(a[0].checksum, b[0].checksum);
  EXPECT_EQ(test::read_text(folder / "a"), test::read_text(folder / "b"));
}

TEST(Safetensors, ForeignDataOffItsAlignmentIsReadThroughACopy) {
  const float number = 2.25f;
  std::string data = "\x07";
  data.append(reinterpret_cast<const char*>(&number), 4);
  const std::string file = raw_file(
      R"({"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      data);
  for (std::size_t shift = 0; shift < 4; ++shift) {
    std::string moved(shift, ' ');
    moved += file;
    const SafetensorsReader reader("f", std::as_bytes(std::span(moved)).subspan(shift));
    const View view = reader.view("f");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.data) % 4, 0u);
    EXPECT_EQ(view.as<float>()[0], number);
    EXPECT_EQ(reader.view("f").data, view.data) << "the copy is made once";
  }
}

TEST(Safetensors, ATypeWithoutADtypeIsListedButNotViewed) {
  const std::string file = raw_file(R"({"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", "ab");
  const SafetensorsReader reader("f", std::as_bytes(std::span(file)));
  EXPECT_EQ(reader.entry("h").type, "F16");
  EXPECT_EQ(reader.bytes(reader.entry("h")).size(), 2u);
  const std::string message = test::user_error([&] { reader.view("h"); });
  EXPECT_NE(message.find("F16"), std::string::npos) << message;
}

TEST(Safetensors, AMissingTensorAndAMissingFileAreNamed) {
  const TempFolder folder;
  write_safetensors(folder / "t", {});
  const SafetensorsReader reader(folder / "t");
  EXPECT_EQ(reader.find("w"), nullptr);
  EXPECT_NE(test::user_error([&] { reader.view("w"); }).find("'w'"), std::string::npos);
  EXPECT_NE(test::user_error([&] { SafetensorsReader(folder / "none"); }).find("none"), std::string::npos);
  EXPECT_NE(test::user_error([&] { SafetensorsReader(folder.path()); }).find("not a regular file"), std::string::npos);
}

TEST(Safetensors, TheWriterRefusesADuplicateName) {
  const TempFolder folder;
  const float x = 0;
  const std::vector<SafetensorsSource> twice = {{"a", View(&x, {1}, DType::f32)}, {"a", View(&x, {1}, DType::f32)}};
  EXPECT_THROW(write_safetensors(folder / "t", twice), Error);
  const std::vector<SafetensorsSource> reserved = {{"__metadata__", View(&x, {1}, DType::f32)}};
  EXPECT_THROW(write_safetensors(folder / "t", reserved), Error);
}

TEST(Safetensors, AFullDiskWhileWritingLeavesTheOldFile) {
  test::CrashFileSystem files;
  const std::vector<float> data(1'000'000, 1.0f);
  const std::vector<SafetensorsSource> tensors = {{"x", View(data.data(), {1'000'000}, DType::f32)}};
  write_safetensors("t", tensors, {}, files);
  const std::string before = *files.content("t");
  for (int operation = 0; operation < 4; ++operation) {
    files.fail_at(operation, ENOSPC);
    EXPECT_THROW(write_safetensors("t", tensors, {{"new", "one"}}, files), IoError);
    EXPECT_EQ(*files.content("t"), before);
    EXPECT_EQ(files.list("").size(), 1u);
  }
}

}  // namespace
}  // namespace weft
