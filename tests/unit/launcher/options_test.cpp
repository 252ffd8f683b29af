#include "launcher/options.hpp"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.hpp"
#include "launcher/option_values.hpp"
#include "launcher/options_table.hpp"

namespace weft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

using Words = std::vector<std::string>;

ModelNames names() {
  ModelNames result;
  result.presets = {"transformer", "tiny"};
  result.mixers = {"attention", "lstm"};
  result.preset = [](std::string_view name) -> std::optional<std::string> {
    if (name == "transformer") return "layers = 6\nlr = 0.001\n";
    if (name == "tiny") return "layers = 2\nd-model = 64\nheads = 2\nsteps = 10\n";
    if (name == "lstm") return "mixer = lstm\npositions = none\n";
    return std::nullopt;
  };
  return result;
}

Options parse(const std::string& command, const Words& words) { return parse_options(command, words, names()); }

class TemporaryFile {
 public:
  TemporaryFile(const std::string& name, const std::string& text)
      : path_(std::filesystem::path(testing::TempDir()) / (std::to_string(::getpid()) + "-" + name)) {
    std::ofstream(path_) << text;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string error_of(const std::string& command, const Words& words) {
  try {
    parse(command, words);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Options, CommandLineBeatsConfigBeatsPresetBeatsDefault) {
  const TemporaryFile config("a.cfg", "# a comment\nmodel = tiny\nsteps = 20\nlayers = 3\n\nbatch = 4\n");
  const Options options = parse("train", {"--data", "x", "--config", config.path(), "--layers", "5"});
  EXPECT_EQ(options.model.layers, 5);
  EXPECT_EQ(options.train.steps, 20);
  EXPECT_EQ(options.model.d_model, 64);
  EXPECT_EQ(options.train.batch, 4);
  EXPECT_EQ(options.train.seq, 256);
  EXPECT_EQ(options.source("layers"), Source::command_line);
  EXPECT_EQ(options.source("steps"), Source::config);
  EXPECT_EQ(options.source("d-model"), Source::preset);
  EXPECT_EQ(options.source("seq"), Source::built_in);
  EXPECT_TRUE(options.given("steps"));
  EXPECT_FALSE(options.given("d-model"));
}

TEST(Options, ModelOnTheCommandLineReplacesTheConfigsPreset) {
  const TemporaryFile config("b.cfg", "model = tiny\n");
  EXPECT_EQ(parse("train", {"--data", "x", "--config", config.path(), "--model", "transformer"}).model.layers, 6);
}

TEST(Options, MixerNameStandsForTheStandardBlocks) {
  const Options options = parse("train", {"--data", "x", "--model", "lstm"});
  EXPECT_EQ(options.model.mixer, "lstm");
  EXPECT_EQ(options.model.positions, PositionChoice::none);
  EXPECT_EQ(options.source("mixer"), Source::preset);
}

TEST(Options, PresetFileByPath) {
  const TemporaryFile preset("c.cfg", "layers = 9\n");
  EXPECT_EQ(parse("train", {"--data", "x", "--model", preset.path()}).model.layers, 9);
}

TEST(Options, ListsTakeSeveralWordsAndRepeat) {
  EXPECT_THAT(parse("train", {"--data", "a", "b", "--steps", "3", "--data", "c"}).data.data,
              ElementsAre("a", "b", "c"));
  EXPECT_THAT(parse("prepare", {"a", "--out", "o", "b"}).data.data, ElementsAre("a", "b"));
}

TEST(Options, FlagsStandAloneOrTakeYesAndNo) {
  EXPECT_TRUE(parse("train", {"--data", "x", "--quiet"}).run.quiet);
  EXPECT_FALSE(parse("train", {"--data", "x", "--tied", "no"}).model.tied);
  EXPECT_FALSE(parse("train", {"--data", "x", "--tied=no"}).model.tied);
  EXPECT_TRUE(parse("train", {"--quiet", "--data", "x"}).run.quiet);
}

TEST(Options, UnsetWidthsFollowFromTheOthers) {
  EXPECT_EQ(parse("train", {"--data", "x", "--d-model", "384"}).model.d_ff, 1536);
  EXPECT_EQ(parse("train", {"--data", "x", "--d-model", "384", "--mlp", "swiglu"}).model.d_ff, 1024);
  EXPECT_EQ(parse("train", {"--data", "x", "--d-model", "384", "--mlp", "boom"}).model.d_ff, 1536);
  EXPECT_EQ(parse("train", {"--data", "x"}).model.kv_heads, 6);
  EXPECT_EQ(parse("train", {"--data", "x", "--steps", "50"}).schedule.warmup, 5);
  EXPECT_DOUBLE_EQ(parse("train", {"--data", "x", "--lr", "0.5"}).schedule.min_lr, 0.05);
}

TEST(Options, LaunchKeepsWhatFollowsTheDashes) {
  const Options options = parse("launch", {"-n", "4", "--", "train", "--data", "x", "--help"});
  EXPECT_EQ(options.launch.ranks, 4);
  EXPECT_THAT(options.launch.program, ElementsAre("train", "--data", "x", "--help"));
}

TEST(Options, ConfigTextReadsBackToTheSameValues) {
  const Options first =
      parse("train", {"--data", " spaced name ", "b", "--lr", "0.1", "--min-lr", "0.030000000000000002", "--max-time",
                      "1h30m", "--memory-limit", "3G", "--resume", "none", "--dtype", "bf16", "--tied", "no", "--out",
                      "with \"quotes\" and \\n"});
  const TemporaryFile config("d.cfg", config_text(first));
  const Options second = parse("train", {"--config", config.path()});
  EXPECT_EQ(config_text(second), config_text(first));
  EXPECT_THAT(second.data.data, ElementsAre(" spaced name ", "b"));
  EXPECT_EQ(second.schedule.min_lr, first.schedule.min_lr);
  EXPECT_EQ(second.run.memory_limit, std::uint64_t{3} << 30);
  EXPECT_EQ(second.train.max_time, 5400);
}

TEST(Options, ConfigForSeveralCommandsPassesOverOthersKeys) {
  const TemporaryFile config("e.cfg", "tokens = 7\nsteps = 3\n");
  EXPECT_EQ(parse("sample", {"--checkpoint", "c", "--config", config.path()}).sample.tokens, 7);
}

struct BadInput {
  std::string command;
  Words words;
  Words parts;  ///< all must stand in the message
};

class OptionsBadInput : public testing::TestWithParam<BadInput> {};

TEST_P(OptionsBadInput, IsSaidInOneLine) {
  const BadInput& input = GetParam();
  const std::string error = error_of(input.command, input.words);
  for (const std::string& part : input.parts) EXPECT_THAT(error, HasSubstr(part));
  EXPECT_THAT(error, Not(HasSubstr("\n")));
}

INSTANTIATE_TEST_SUITE_P(
    Table, OptionsBadInput,
    testing::Values(
        BadInput{"train", {"--data", "x", "--stpes", "3"}, {"--stpes", "did you mean --steps?"}},
        BadInput{"train", {"--data", "x", "--weight-deacy", "3"}, {"did you mean --weight-decay?"}},
        BadInput{"train", {"--data", "x", "--checkpoint", "3"}, {"--checkpoint", "`weft eval`", "`weft sample`"}},
        BadInput{"train", {"--data", "x", "--qqqqqqqq", "3"}, {"--qqqqqqqq", "--help"}},
        BadInput{"train", {"--data", "x", "--steps", "1e3"}, {"--steps", "`1e3`", "whole number of at least 1"}},
        BadInput{"train", {"--data", "x", "--steps", "0"}, {"--steps", "`0`", "at least 1"}},
        BadInput{"train", {"--data", "x", "--steps", "-4"}, {"--steps", "-4"}},
        BadInput{"train", {"--data", "x", "--steps"}, {"--steps needs a value"}},
        BadInput{"train", {"--data", "x", "--steps", "3", "--steps", "4"}, {"--steps is given twice"}},
        BadInput{"train", {"--data", "x", "--out", "caf\xe9"}, {"--out", "UTF-8"}},
        BadInput{"train", {"--data", "x", "--lr", "1e99"}, {"--lr", "`1e99`"}},
        BadInput{"train", {"--data", "x", "--bucket-mb", "1e9"}, {"--bucket-mb", "`1e9`"}},
        BadInput{"train", {"--data", "x", "--lr", "nan"}, {"--lr", "`nan`", "above 0"}},
        BadInput{"train", {"--data", "x", "--dropout", "1"}, {"--dropout", "at least 0 and below 1"}},
        BadInput{"train", {"--data", "x", "--dtype", "fp16"}, {"--dtype", "`fp16`", "auto, f32 or bf16"}},
        BadInput{"train", {"--data", "x", "--quiet=maybe"}, {"--quiet", "`maybe`", "yes or no"}},
        BadInput{"train", {"--data", "x", "--max-time", "5x"}, {"--max-time", "`5x`", "1h30m"}},
        BadInput{"train", {"--data", "x", "--memory-limit", "lots"}, {"--memory-limit", "`lots`", "2G"}},
        BadInput{"train", {"--data", "x", "--zero", "4"}, {"--zero", "`4`", "from 0 to 3"}},
        BadInput{"train", {"--data", "x", "--d-model", "4611686018427387904"}, {"--d-model", "from 1 to 1048576"}},
        BadInput{"train", {"--data", "x", "--d-ff", "4611686018427387904"}, {"--d-ff", "from 0 to 16777216"}},
        BadInput{"train", {"--data", "x", "--layers", "100000000000"}, {"--layers", "from 1 to 65536"}},
        BadInput{"train", {"--data", "x", "--heads", "4611686018427387904"}, {"--heads", "from 1 to 1048576"}},
        BadInput{"train", {"--data", "x", "--heads", "5"}, {"--heads", "5", "divisor of --d-model 384"}},
        BadInput{"train", {"--data", "x", "--kv-heads", "4"}, {"--kv-heads", "4", "divisor of --heads 6"}},
        BadInput{"train", {"--data", "x", "--micro-batch", "99"}, {"--micro-batch", "99", "--batch 16"}},
        BadInput{"train", {"--data", "x", "--min-lr", "1"}, {"--min-lr", "--lr 0.001"}},
        BadInput{"train",
                 {"--data", "x", "--model", "transfomer"},
                 {"--model", "`transfomer`", "did you mean transformer?"}},
        BadInput{"train", {"--data", "x", "--model", "no/such.cfg"}, {"--model", "no/such.cfg"}},
        BadInput{"train", {"--data", "x", "--config", "no-such-file"}, {"--config", "no-such-file"}},
        BadInput{"train", {}, {"--data is missing"}}, BadInput{"eval", {"--data", "x"}, {"--checkpoint is missing"}},
        BadInput{"sample", {"--checkpoint", "x", "--top-p", "0"}, {"--top-p", "above 0 and at most 1"}},
        BadInput{"launch", {"-n", "2"}, {"nothing to launch", "-- train"}},
        BadInput{"report", {}, {"DIR is missing"}}));

TEST(OptionsConfig, MessagesNameTheLine) {
  const TemporaryFile unknown("f.cfg", "steps = 4\nlayres = 3\n");
  EXPECT_THAT(error_of("train", {"--config", unknown.path()}),
              testing::AllOf(HasSubstr("line 2"), HasSubstr("`layres`"), HasSubstr("did you mean layers?")));
  const TemporaryFile bad("g.cfg", "data = x\nsteps = many\n");
  EXPECT_THAT(error_of("train", {"--config", bad.path()}), testing::AllOf(HasSubstr("line 2"), HasSubstr("`many`")));
  const TemporaryFile shape("h.cfg", "data = x\nsteps\n");
  EXPECT_THAT(error_of("train", {"--config", shape.path()}), HasSubstr("`key = value`"));
  const TemporaryFile twice("i.cfg", "data = x\nsteps = 3\nsteps = 4\n");
  EXPECT_THAT(error_of("train", {"--config", twice.path()}), testing::AllOf(HasSubstr("line 3"), HasSubstr("before")));
}

TEST(OptionsTable, EveryRowReadsWhatItWritesAndBelongsToACommand) {
  Options defaults;
  for (const OptionRow& row : option_table()) {
    SCOPED_TRACE(row.name);
    EXPECT_NE(row.commands, 0u);
    const Words texts = row.write(defaults);
    if (texts.empty() || texts.front() == "-1") continue;
    Options other;
    EXPECT_NO_THROW(row.read(other, texts));
    EXPECT_EQ(row.write(other), texts);
  }
}

TEST(OptionsTable, HelpFitsIn100ColumnsAndNamesEveryOption) {
  for (const CommandRow& command : command_table()) {
    const std::string help = help_text(command.name);
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
    for (const OptionRow& row : option_table()) {
      const bool shown = help.find("--" + std::string(row.name) + " ") != std::string::npos;
      EXPECT_EQ(shown, (row.commands & command.bit) != 0) << command.name << " --" << row.name;
    }
  }
}

TEST(OptionValues, NearestNameIsNearOrNone) {
  const Words all = {"steps", "seed", "batch", "checkpoint-every"};
  EXPECT_EQ(nearest_name("stepps", all), "steps");
  EXPECT_EQ(nearest_name("setps", all), "steps");
  EXPECT_EQ(nearest_name("checkpoint", all), "checkpoint-every");
  EXPECT_EQ(nearest_name("zzz", all), "");
}

TEST(OptionValues, EditDistanceCountsTranspositionsOnce) {
  EXPECT_EQ(edit_distance("abcd", "abdc"), 1u);
  EXPECT_EQ(edit_distance("abcd", "abd"), 1u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(OptionValues, TimesAndSizes) {
  EXPECT_EQ(read_seconds("90"), 90);
  EXPECT_EQ(read_seconds("1.5h"), 5400);
  EXPECT_EQ(read_seconds("1d2h3m4s"), 93784);
  EXPECT_EQ(read_seconds("01:02:03"), 3723);
  EXPECT_EQ(read_seconds("2:30"), 150);
  EXPECT_THROW(read_seconds("1:2:3:4"), BadValue);
  EXPECT_THROW(read_seconds("-5"), BadValue);
  EXPECT_THROW(read_seconds("h"), BadValue);
  EXPECT_EQ(read_bytes("512M"), std::uint64_t{512} << 20);
  EXPECT_EQ(read_bytes("1.5GiB"), std::uint64_t{3} << 29);
  EXPECT_EQ(read_bytes("100"), 100u);
  EXPECT_THROW(read_bytes("G"), BadValue);
  EXPECT_EQ(write_bytes(std::uint64_t{3} << 30), "3G");
  EXPECT_EQ(write_bytes(1000), "1000");
}

}  // namespace
}  // namespace weft
