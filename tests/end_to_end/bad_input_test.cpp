// Wrong input: status 2, one line that names what is wrong, nothing written.
#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "run_weft.hpp"

namespace weft::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

using Words = std::vector<std::string>;

const Words tiny = {"--layers", "1", "--d-model", "32", "--heads", "2", "--seq", "16", "--batch", "4", "--steps", "2"};

std::string text() {
  std::string result;
  for (int i = 0; i < 400; ++i) result += "the quick brown fox jumps over line " + std::to_string(i) + "\n";
  return result;
}

struct BadInput {
  std::string name;
  Words arguments;  ///< DIR stands for a temporary folder
  Words parts;      ///< all must stand in the line
};

std::ostream& operator<<(std::ostream& stream, const BadInput& input) { return stream << input.name; }

Words in_folder(const Words& words, const TemporaryFolder& folder) {
  Words result;
  for (std::string word : words) {
    if (const std::size_t at = word.find("DIR"); at != std::string::npos) word.replace(at, 3, folder.path().string());
    result.push_back(word);
  }
  return result;
}

void expect_one_line(const Outcome& outcome, const Words& parts) {
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.lines(), SizeIs(1)) << outcome.err;
  for (const std::string& part : parts) EXPECT_THAT(outcome.err, HasSubstr(part));
  EXPECT_EQ(outcome.out, "");
}

class BadInputTest : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputTest, EndsWith2AndOneLineAndWritesNothing) {
  const TemporaryFolder folder;
  folder.write("data.txt", text());
  folder.write("empty.txt", "");
  folder.write("short.txt", "abc");
  folder.write("odd.bin", "abc");
  std::filesystem::create_directory(folder / "model");
  folder.write("model/tokenizer.json", "{}");
  folder.write("large.bin", std::string("\x01\x00\xff\xff\x01\x00\x02\x00", 8) + std::string(400, '\0'));
  folder.write("file", "x");
  folder.write("latin.cfg", "# a name in Latin-1\nout = b\xfc" "cher\n");
  const Words before = folder.entries();
  expect_one_line(run_weft(in_folder(GetParam().arguments, folder)), in_folder(GetParam().parts, folder));
  EXPECT_EQ(folder.entries(), before);
}

Words train(const Words& more, const std::string& data = "DIR/data.txt") {
  Words words = {"train", "--data", data, "--out", "DIR/out"};
  words.insert(words.end(), tiny.begin(), tiny.end());
  for (std::size_t i = 0; i < more.size(); ++i) {
    // What a row says replaces the tiny model's value.
    const auto same = std::ranges::find(words, more[i]);
    if (same != words.end() && more[i].starts_with("--") && i + 1 < more.size()) {
      *(same + 1) = more[++i];
      continue;
    }
    words.push_back(more[i]);
  }
  return words;
}

Words launched(const Words& words) {
  Words result = {"launch", "-n", "2", "--"};
  result.insert(result.end(), words.begin(), words.end());
  return result;
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadInputTest,
    testing::Values(BadInput{"UnknownCommand", {"tarin"}, {"unknown command `tarin`", "did you mean `weft train`?"}},
                    BadInput{"UnknownOption", train({"--stpes", "2"}), {"--stpes", "did you mean --steps?"}},
                    BadInput{"BadValue", train({"--steps", "many"}), {"--steps", "`many`", "whole number"}},
                    BadInput{"MissingData", train({}, "DIR/no.txt"), {"DIR/no.txt"}},
                    BadInput{"EmptyData", train({}, "DIR/empty.txt"), {"DIR/empty.txt", "empty"}},
                    BadInput{"ShortData", train({}, "DIR/short.txt"), {"short"}},
                    BadInput{"TornTokens", train({}, "DIR/odd.bin"), {"DIR/odd.bin"}},
                    BadInput{"TokenOutsideTheVocabulary",
                             train({"--vocab", "300", "--data-format", "u16"}, "DIR/large.bin"),
                             {"--vocab", "300", "65536"}},
                    BadInput{"HeadsAndWidth", train({"--heads", "3"}), {"--heads", "3", "32"}},
                    BadInput{"BatchAndRanks", launched(train({"--batch", "3"})), {"batch", "3", "2"}},
                    BadInput{"LayoutAndRanks", launched(train({"--dp", "3"})), {"dp", "3", "2"}},
                    BadInput{"HeadsAndTensorRanks",
                             launched(train({"--heads", "1", "--tp", "2"})),
                             {"--tp: found 2", "--heads 1", "2 ranks that fit: --dp 2; --sp 2"}},
                    BadInput{"FeedForwardAndTensorRanks",
                             launched(train({"--d-ff", "1", "--tp", "2"})),
                             {"--tp: found 2", "--d-ff 1"}},
                    BadInput{"ChunksOfBoom",
                             train({"--mlp", "boom", "--d-ff", "33"}),
                             {"--d-ff: found 33", "--d-model 32", "--mlp boom"}},
                    BadInput{"ChunksOfBoomAndTensorRanks",
                             launched(train({"--mlp", "boom", "--d-ff", "32", "--tp", "2"})),
                             {"--tp: found 2", "--mlp boom", "--d-ff 32 has 1"}},
                    BadInput{"HeadWiderThanTheKernels",
                             train({"--model", "sha-rnn", "--layers", "3", "--d-model", "1026"}),
                             {"--d-model: found 1026", "sha-rnn", "at most 1024"}},
                    BadInput{"HeadsToExchangeAndRanks",
                             launched(train({"--heads", "1", "--sp", "2", "--sp-attention", "exchange"})),
                             {"--sp-attention: found exchange", "ring would be right", "that fit: --dp 2"}},
                    BadInput{"TokensAndSequenceRanks",
                             launched(train({"--seq", "1", "--sp", "2"})),
                             {"--sp: found 2", "--seq 1", "that fit: --dp 2"}},
                    BadInput{"MixerAndSequenceRanks",
                             launched(train({"--model", "sha-rnn", "--sp", "2"})),
                             {"--sp: found 2; the mixer sha-rnn works on whole sequences on one rank, 1 would be right",
                              "2 ranks that fit: --dp 2"}},
                    BadInput{"ChannelsAndTensorRanks",
                             launched(train({"--model", "lstm", "--d-model", "1", "--heads", "1", "--tp", "2"})),
                             {"--tp: found 2; --d-model 1 goes over that many ranks or fewer", "that fit: --dp 2"}},
                    BadInput{"WindowAndSharedRows",
                             launched(train({"--model", "qrnn", "--tp", "2", "--tp-sequence", "on"})),
                             {"--tp-sequence: found on; the mixer qrnn needs all rows of the stream, off would be right"}},
                    BadInput{"OutputHoldsAnothersTokenizer",
                             train({"--out", "DIR/model"}),
                             {"--out: found DIR/model/tokenizer.json, which is not this run's tokenizer"}},
                    BadInput{"OutputIsAFile", train({"--out", "DIR/file"}), {"--out", "DIR/file"}},
                    BadInput{"OutputBelowAFile", launched(train({"--out", "DIR/file/out"})), {"--out", "DIR/file/out"}},
                    BadInput{"ConfigIsMissing", train({"--config", "DIR/no.cfg"}), {"--config", "DIR/no.cfg"}},
                    BadInput{"ConfigIsNotUtf8", train({"--config", "DIR/latin.cfg"}), {"line 2", "DIR/latin.cfg", "UTF-8"}},
                    BadInput{"AxesBeyondAllNumbers", train({"--tp", "65536", "--sp", "65536"}), {"65536", "ranks"}},
                    BadInput{"ResumeFromNothing", train({"--resume", "DIR/no"}), {"DIR/no"}},
                    BadInput{"CheckpointIsMissing", {"sample", "--checkpoint", "DIR/no"}, {"DIR/no"}},
                    BadInput{"ReportOfNoRun", {"report", "DIR"}, {"DIR", "metrics.jsonl"}},
                    BadInput{"PrepareFromNothing", {"prepare", "--out", "DIR/out", "DIR/no.txt"}, {"DIR/no.txt"}},
                    BadInput{"PrepareOverAFolder", {"prepare", "--out", "DIR", "DIR/data.txt"}, {"DIR"}},
                    BadInput{"LaunchOfNothing", {"launch", "-n", "2"}, {"nothing to launch"}},
                    BadInput{"LaunchOfAnother", {"launch", "--", "trian"}, {"`trian`", "did you mean train?"}},
                    BadInput{"LaunchHostfile",
                             {"launch", "--hostfile", "DIR/no", "-n", "2", "--", "train", "--data", "x"},
                             {"--hostfile"}}),
    [](const auto& row) { return row.param.name; });

// A trained checkpoint that each test may damage.
class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_.write("data.txt", text());
    const Outcome trained = run_weft(in_folder(train({"--quiet"}), folder_));
    ASSERT_EQ(trained.status, 0) << trained.err;
  }
  std::vector<std::filesystem::path> tensors() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path() / "out/checkpoints"))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    return files;
  }

  TemporaryFolder folder_;
};

TEST_F(CheckpointTest, OfAnotherModelSaysWhatDiffers) {
  expect_one_line(run_weft(in_folder(train({"--quiet", "--d-model", "64", "--steps", "4"}), folder_)), {"64", "32"});
}

TEST(SampleTest, ALargeVocabularyOfBytesIsSampledAndOfTokensNeedsATokenizer) {
  const TemporaryFolder folder;
  folder.write("data.txt", text());
  std::string tokens;
  for (int i = 0; i < 4000; ++i) tokens += {static_cast<char>(i % 300 & 0xff), static_cast<char>(i % 300 >> 8)};
  folder.write("tokens.bin", tokens);
  const auto sample_after = [&](const std::string& data, const std::string& out) {
    const Outcome trained = run_weft(in_folder(train({"--quiet", "--vocab", "320", "--out", out}, data), folder));
    EXPECT_EQ(trained.status, 0) << trained.err;
    return run_weft(in_folder({"sample", "--checkpoint", out, "--prompt", "a", "--tokens", "3"}, folder));
  };
  const Outcome bytes = sample_after("DIR/data.txt", "DIR/bytes");
  EXPECT_EQ(bytes.status, 0) << bytes.err;
  expect_one_line(sample_after("DIR/tokens.bin", "DIR/tokens"), {"--tokenizer-file", "320"});
}

// A reader that leaves is no error, a full disk is.
TEST(SampleTest, EndsWithItsReaderAndFailsOnAFullDisk) {
  const TemporaryFolder folder;
  folder.write("data.txt", text());
  ASSERT_EQ(run_weft(in_folder(train({"--quiet", "--out", "DIR/out"}, "DIR/data.txt"), folder)).status, 0);
  // So many tokens take far longer than the test may.
  const std::string sample = weft_path() + " sample --prompt a --tokens 100000000 --checkpoint " + folder / "out";
  const Outcome piped = run_program({"bash", "-c", "set -o pipefail; " + sample + " | head -c 20"}, 60);
  EXPECT_EQ(piped.status, 0) << piped.err;
  EXPECT_EQ(piped.out.size(), 20u);
  EXPECT_EQ(piped.err, "");
  const Outcome full = run_program({"bash", "-c", sample + " > /dev/full"}, 60);
  EXPECT_EQ(full.status, 3);
  EXPECT_THAT(full.err, testing::HasSubstr("standard output"));
}

TEST(Output, OnAFullDiskIsAnError) {
  // One that fits the buffer of the stream, and one that does not.
  for (const char* words : {" --help", " train --help"}) {
    const Outcome full = run_program({"bash", "-c", weft_path() + words + " > /dev/full"});
    EXPECT_EQ(full.status, 3);
    EXPECT_THAT(full.err, testing::HasSubstr("cannot write 'standard output': No space left on device")) << words;
  }
}

TEST_F(CheckpointTest, TruncatedTensorsAreRefusedWhenAskedForByName) {
  ASSERT_FALSE(tensors().empty());
  const std::filesystem::path file = tensors().front();
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  expect_one_line(run_weft({"sample", "--checkpoint", file.parent_path().string()}), {file.filename().string()});
}

// At each place: parameters and optimizer state alike.
TEST_F(CheckpointTest, DamagedTensorsAreNotResumedFrom) {
  ASSERT_FALSE(tensors().empty());
  const std::filesystem::path path = tensors().front();
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(path));
  for (const std::streamoff from_end : {std::streamoff{1}, size / 3, size / 2}) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(size - from_end);
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(size - from_end);
    file.put(byte);
    file.close();
    expect_one_line(
        run_weft(in_folder(train({"--quiet", "--steps", "4", "--resume", path.parent_path().string()}), folder_)),
        {path.filename().string()});
    file.open(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(size - from_end);
    file.put(static_cast<char>(byte ^ 0x10));
  }
  EXPECT_EQ(
      run_weft(in_folder(train({"--quiet", "--steps", "3", "--resume", path.parent_path().string()}), folder_)).status,
      0);
}

TEST(DifferentRanks, AreRefusedByOneLine) {
  const TemporaryFolder folder;
  folder.write("data.txt", text());
  Words words = {"env",
                 "OMPI_ALLOW_RUN_AS_ROOT=1",
                 "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                 "mpirun",
                 "-q",
                 "--oversubscribe",
                 "-n",
                 "1",
                 weft_path()};
  const Words first = in_folder(train({}), folder), second = in_folder(train({"--lr", "0.5"}), folder);
  words.insert(words.end(), first.begin(), first.end());
  words.insert(words.end(), {":", "-n", "1", weft_path()});
  words.insert(words.end(), second.begin(), second.end());
  const Outcome outcome = run_program(words);
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.lines(), ElementsAre(testing::AllOf(HasSubstr("rank 1"), HasSubstr("lr"))));
  EXPECT_THAT(folder.entries(), ElementsAre("data.txt"));
}

// What is missing is named, whatever it is; `auto` goes on without a GPU.
TEST(DeviceTest, ACudaModuleThatCannotBeUsedIsNamedWithItsReason) {
  const TemporaryFolder folder;
  folder.write("data.txt", text());
  folder.write("module.so", "no library");
  const Words before = folder.entries();
  const auto train_with = [&](const std::string& module, const std::string& device) {
    Words words = {"env", "WEFT_CUDA_MODULE=" + module, weft_path()};
    const Words rest = in_folder(train({"--quiet", "--device", device}), folder);
    words.insert(words.end(), rest.begin(), rest.end());
    return run_program(words);
  };
  expect_one_line(train_with(folder / "none.so", "cuda"), {"--device", folder / "none.so", "does not exist", "cpu"});
  expect_one_line(train_with(folder / "module.so", "cuda"), {"--device", folder / "module.so", "cannot be loaded"});
  expect_one_line(train_with("libc.so.6", "cuda"), {"--device", "libc.so.6"});
  EXPECT_EQ(folder.entries(), before);
  const Outcome alone = train_with(folder / "module.so", "auto");
  EXPECT_EQ(alone.status, 0) << alone.err;
  const Outcome doctor = run_program({"env", "WEFT_CUDA_MODULE=" + folder / "module.so", weft_path(), "doctor"});
  EXPECT_EQ(doctor.status, 0) << doctor.err;
  EXPECT_THAT(doctor.out, testing::ContainsRegex("GPUs\n +unusable +" + folder / "module.so" + " cannot be loaded"));
}

TEST(Help, IsThereForEveryCommand) {
  for (const char* command : {"demo", "train", "launch", "eval", "sample", "prepare", "report", "doctor"}) {
    const Outcome outcome = run_weft({command, "--help"});
    EXPECT_EQ(outcome.status, 0);
    EXPECT_THAT(outcome.out, HasSubstr(std::string("Usage: weft ") + command));
  }
  EXPECT_EQ(run_weft({"--version"}).out.substr(0, 5), "weft ");
  EXPECT_EQ(run_weft({}).status, 2);
}

}  // namespace
}  // namespace weft::test
