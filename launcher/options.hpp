// What the user can set, as typed structs. One table (options_table.cpp) serves the command line, `--config FILE`,
// model presets and `--help`. Precedence: command line, then --config, then the model's preset, then the default.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

enum class NormChoice : std::uint8_t { layer, rms };
enum class BlockChoice : std::uint8_t { pre_norm, plain };
enum class MlpChoice : std::uint8_t { gelu, swiglu, boom };
enum class PositionChoice : std::uint8_t { learned, rotary, none };
enum class DataFormatChoice : std::uint8_t { automatic, bytes, u16, u32 };
enum class SamplerChoice : std::uint8_t { shuffled, streams };
enum class TokenizerChoice : std::uint8_t { bytes, words, bpe, unigram };
enum class OptimizerChoice : std::uint8_t { adamw, sgd, radam };
enum class ScheduleChoice : std::uint8_t { cosine, linear, constant };
enum class DTypeChoice : std::uint8_t { automatic, f32, bf16 };
enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
/// Whether checkpoints are written while training goes on.
enum class AsyncCheckpoint : std::uint8_t { automatic, on, off };
/// How GPUs' collectives travel.
enum class GpuComm : std::uint8_t { automatic, nccl, mpi };
enum class WireChoice : std::uint8_t { f32, bf16 };
enum class GraphChoice : std::uint8_t { automatic, off };
enum class TpSequenceChoice : std::uint8_t { automatic, on, off };
enum class SpAttentionChoice : std::uint8_t { automatic, ring, exchange };
enum class RecomputeChoice : std::uint8_t { none, attention, block };
enum class ResumeChoice : std::uint8_t { automatic, none, path };

struct ModelOptions {
  std::string name = "transformer";  ///< preset, mixer, or the path of a preset file, as given
  std::string mixer = "attention";   ///< a name of the mixer registry
  NormChoice norm = NormChoice::layer;
  BlockChoice block = BlockChoice::pre_norm;
  MlpChoice mlp = MlpChoice::gelu;
  PositionChoice positions = PositionChoice::learned;
  bool bias = true;
  bool tied = true;  ///< the head shares the embedding's weight
  std::int64_t layers = 6;
  std::int64_t d_model = 384;
  std::int64_t heads = 6;
  std::int64_t kv_heads = 0;  ///< 0: as many as heads
  std::int64_t d_ff = 0;      ///< 0: 4·d_model; 8/3·d_model, rounded up to a multiple of 64, for swiglu
  std::int64_t attention_every = 1;  ///< SRU++, SHA-RNN: of so many blocks the last attends
  std::int64_t attention_width = 0;  ///< SRU++; 0: an eighth of d_model
  std::int64_t vocab = 0;            ///< 0: what the data or the tokenizer has
  double dropout = 0;
  double norm_eps = 1e-5;
  double rotary_theta = 10000;
};

struct DataOptions {
  std::vector<std::string> data;
  std::vector<std::string> valid;
  double valid_fraction = 0.1;  ///< of the tail of `data`, where no `valid` is given
  DataFormatChoice format = DataFormatChoice::automatic;
  SamplerChoice sampler = SamplerChoice::shuffled;
};

struct TrainOptions {
  std::int64_t steps = 1000;
  std::int64_t batch = 16;       ///< global, in sequences
  std::int64_t micro_batch = 0;  ///< sequences a rank takes at a time; 0: chosen
  std::int64_t seq = 256;        ///< tokens
  std::int64_t log_every = 1;
  std::int64_t valid_every = 100;       ///< 0: at the end only
  std::int64_t valid_tokens = 0;        ///< targets of one validation; 0: all
  AsyncCheckpoint async_checkpoint = AsyncCheckpoint::automatic;
  std::int64_t checkpoint_every = 200;  ///< 0: at the end only
  std::int64_t keep = 2;                ///< checkpoints; 0: all
  double max_time = 0;                  ///< seconds; 0: no limit
  std::int64_t nonfinite_limit = 10;    ///< consecutive skipped steps before the run fails
  GraphChoice cuda_graph = GraphChoice::automatic;
};

struct OptimOptions {
  OptimizerChoice kind = OptimizerChoice::adamw;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double momentum = 0.9;
  double clip = 1;  ///< global norm; 0: none
};

struct ScheduleOptions {
  ScheduleChoice kind = ScheduleChoice::cosine;
  double lr = 1e-3;
  double min_lr = -1;        ///< below 0: lr / 10
  std::int64_t warmup = -1;  ///< steps; below 0: chosen (a tenth of the steps, at most 100)
};

struct LayoutOptions {
  std::int64_t dp = 0;  ///< 0: what the other axes leave
  std::int64_t tp = 1;
  std::int64_t sp = 1;
  std::int64_t pp = 1;
  TpSequenceChoice tp_sequence = TpSequenceChoice::automatic;
  SpAttentionChoice sp_attention = SpAttentionChoice::automatic;
  std::int64_t relay_parts = 0;  ///< 0: chosen
  std::int64_t zero = 0;  ///< ZeRO stage, 0 to 3
  RecomputeChoice recompute = RecomputeChoice::none;
  double bucket_mb = 4;  ///< gradient bucket, MiB
  WireChoice grad_wire = WireChoice::f32;
};

struct RunOptions {
  std::string out = "out/run";
  ResumeChoice resume = ResumeChoice::automatic;
  std::string resume_path;  ///< with ResumeChoice::path
  std::uint64_t seed = 1;
  DTypeChoice dtype = DTypeChoice::automatic;
  DeviceChoice device = DeviceChoice::automatic;
  GpuComm gpu_comm = GpuComm::automatic;
  std::string gemm_table;          ///< file of GPU products' algorithms; empty: those of the run's folder, or a fixed rule
  std::string tune;                ///< file that the doctor writes such a table to
  std::int64_t threads = 0;        ///< a rank; 0: what the launcher gave this rank
  std::uint64_t memory_limit = 0;  ///< bytes a rank; 0: no limit
  double timeout = 60;             ///< seconds without progress of a collective before the run fails; 0: never
  bool quiet = false;
  bool json = false;
};

struct EvalOptions {
  std::string logits;  ///< file for them; empty: none
};

struct SampleOptions {
  std::string checkpoint;  ///< a checkpoint's folder, or a run's folder (its latest)
  std::string prompt = "\n";
  std::int64_t tokens = 500;
  double temperature = 0.8;
  std::int64_t top_k = 0;  ///< 0: all
  double top_p = 1;
};

struct TokenizeOptions {
  TokenizerChoice tokenizer = TokenizerChoice::bytes;
  std::string tokenizer_file;  ///< a saved tokenizer to use instead of training one
  std::int64_t min_count = 1;  ///< rarer words become <unk>
  bool replace = false;        ///< an older output folder of `weft prepare` may go
};

struct ImportOptions {
  std::string from;  ///< a Hugging Face folder, or one file of weights beside its config.json
};

struct LaunchOptions {
  std::int64_t ranks = 0;           ///< 0: one a GPU, else as many as cores allow, 2 at most
  std::int64_t cores_per_rank = 0;  ///< 0: an equal share
  std::string hostfile;
  double grace = 60;                 ///< seconds without a sign of ranks that were told to stop
  std::vector<std::string> program;  ///< what follows `--`
};

struct ReportOptions {
  std::string run;      ///< the run's folder
  bool flight = false;  ///< show the ranks' flight records, too
};

struct LensOptions {
  std::vector<std::string> models = {"attention", "lstm", "sru", "qrnn", "mean"};
  std::vector<std::int64_t> lengths = {128, 512, 2048};
  std::vector<std::int64_t> widths = {256};
  std::vector<std::int64_t> batches = {1, 8};  ///< sequences
  std::vector<std::string> axes = {"sp", "tp", "dp"};
  std::vector<std::int64_t> rank_counts;  ///< empty: powers of two up to the ranks there are, and these
  std::int64_t repeats = 3;               ///< timed passes
  std::int64_t recall_steps = 0;          ///< 0: recall is not measured
};

/// Where a value came from, weakest first.
enum class Source : std::uint8_t { built_in, preset, config, command_line };

struct Options {
  std::string command;
  ModelOptions model;
  DataOptions data;
  TrainOptions train;
  OptimOptions optim;
  ScheduleOptions schedule;
  LayoutOptions layout;
  RunOptions run;
  EvalOptions eval;
  SampleOptions sample;
  TokenizeOptions prepare;
  ImportOptions import;
  LaunchOptions launch;
  ReportOptions report;
  LensOptions lens;
  std::map<std::string, Source, std::less<>> sources;  ///< by option name without dashes; absent: built in

  Source source(std::string_view name) const;
  /// Set by the user: on the command line or in --config.
  bool given(std::string_view name) const { return source(name) >= Source::config; }
};

/// A preset's text (`key = value` lines) by name, nothing where there is none.
using PresetText = std::function<std::optional<std::string>(std::string_view)>;

/// What --model may name beside files.
struct ModelNames {
  PresetText preset;  ///< of mixers too: the standard blocks with that mixer
  std::vector<std::string> presets;
  std::vector<std::string> mixers;
};

/// The presets and mixers of this build.
ModelNames model_names();

/// Reads a command's arguments (without program and command name). Throws UserError: one line that names the option,
/// what was found and what would be right. `--help` is the caller's to see first (wants_help).
Options parse_options(std::string_view command, std::span<const std::string> arguments, const ModelNames& names);

/// Reads what config_text wrote; `name` stands for the text in messages. Presets are not looked up: the text is
/// complete.
Options parse_config(std::string_view command, const std::string& text, std::string_view name);

bool wants_help(std::span<const std::string> arguments);

/// The options of one command, grouped, with their defaults; 100 columns.
std::string help_text(std::string_view command);

/// All of a command's options as they took effect, `key = value` lines that --config reads back to the same values.
std::string config_text(const Options& options);

/// Of these what describes the model: its own options and --seq.
std::string model_text(const Options& options);

/// config_text to `path`, written aside and renamed. Throws UserError when the folder cannot be written.
void write_config(const Options& options, const std::string& path);

std::string_view name_of(NormChoice choice);
std::string_view name_of(BlockChoice choice);
std::string_view name_of(MlpChoice choice);
std::string_view name_of(PositionChoice choice);
std::string_view name_of(DataFormatChoice choice);
std::string_view name_of(SamplerChoice choice);
std::string_view name_of(TokenizerChoice choice);
std::string_view name_of(OptimizerChoice choice);
std::string_view name_of(ScheduleChoice choice);
std::string_view name_of(DTypeChoice choice);
std::string_view name_of(DeviceChoice choice);
std::string_view name_of(WireChoice choice);
std::string_view name_of(GraphChoice choice);

}  // namespace weft
