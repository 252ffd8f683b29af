#include "launcher/options_table.hpp"

#include <algorithm>
#include <array>

#include "launcher/option_fields.hpp"

namespace weft {
namespace {

using namespace option_fields;

constexpr std::array<std::string_view, 2> norm_names = {"layer", "rms"};
constexpr std::array<std::string_view, 2> block_names = {"pre-norm", "plain"};
constexpr std::array<std::string_view, 3> mlp_names = {"gelu", "swiglu", "boom"};
constexpr std::array<std::string_view, 3> position_names = {"learned", "rotary", "none"};
constexpr std::array<std::string_view, 4> format_names = {"auto", "bytes", "u16", "u32"};
constexpr std::array<std::string_view, 2> sampler_names = {"shuffled", "streams"};
constexpr std::array<std::string_view, 4> tokenizer_names = {"bytes", "words", "bpe", "unigram"};
constexpr std::array<std::string_view, 3> optimizer_names = {"adamw", "sgd", "radam"};
constexpr std::array<std::string_view, 3> schedule_names = {"cosine", "linear", "constant"};
constexpr std::array<std::string_view, 3> dtype_names = {"auto", "f32", "bf16"};
constexpr std::array<std::string_view, 3> device_names = {"auto", "cpu", "cuda"};
constexpr std::array<std::string_view, 3> async_names = {"auto", "on", "off"};
constexpr std::array<std::string_view, 3> gpu_comm_names = {"auto", "nccl", "mpi"};
constexpr std::array<std::string_view, 2> wire_names = {"f32", "bf16"};
constexpr std::array<std::string_view, 2> graph_names = {"auto", "off"};
constexpr std::array<std::string_view, 3> tp_sequence_names = {"auto", "on", "off"};
constexpr std::array<std::string_view, 3> recompute_names = {"none", "attention", "block"};
constexpr std::array<std::string_view, 3> lens_axis_names = {"sp", "tp", "dp"};
constexpr std::array<std::string_view, 3> sp_attention_names = {"auto", "ring", "exchange"};

constexpr unsigned training = for_train | for_demo;
constexpr unsigned tuned = training | for_doctor;  // what a step's products depend on
constexpr unsigned compute = for_train | for_demo | for_eval | for_sample | for_doctor | for_lens;

class TableMaker {
 public:
  OptionRow& add(std::string_view name, std::string_view placeholder, std::string_view help, unsigned commands) {
    rows.push_back({.name = name,
                    .group = group,
                    .placeholder = placeholder,
                    .help = help,
                    .commands = commands,
                    .read = {},
                    .write = {}});
    return rows.back();
  }
  std::string_view group;
  std::vector<OptionRow> rows;
};

void add_model(TableMaker& t) {
  t.group = "Model";
  text(t.add("model", "NAME|FILE", "a preset, a mixer in the standard blocks, or a preset file", tuned),
       WEFT_FIELD(model.name));
  text(t.add("mixer", "NAME", "the sequence mixer of each block", tuned), WEFT_FIELD(model.mixer));
  integer(t.add("layers", "N", "blocks", tuned), {1, 1 << 16}, WEFT_FIELD(model.layers));
  integer(t.add("d-model", "N", "width", tuned), {1, 1 << 20}, WEFT_FIELD(model.d_model));
  integer(t.add("heads", "N", "attention heads; they divide the width", tuned), {1, 1 << 20}, WEFT_FIELD(model.heads));
  auto& kv = t.add("kv-heads", "N", "key-value heads; they divide the heads", tuned);
  integer(kv, {0, 1 << 20}, WEFT_FIELD(model.kv_heads));
  kv.shown_default = "as heads";
  auto& ff = t.add("d-ff", "N", "width of the feed-forward layer", tuned);
  integer(ff, {0, 1 << 24}, WEFT_FIELD(model.d_ff));
  ff.shown_default = "4 widths, or 8/3 for swiglu";
  integer(t.add("attention-every", "N", "srupp, sha-rnn: of N blocks the last attends", tuned), {1},
          WEFT_FIELD(model.attention_every));
  auto& attention_width = t.add("attention-width", "N", "srupp: width of attention", tuned);
  integer(attention_width, {0}, WEFT_FIELD(model.attention_width));
  attention_width.shown_default = "an eighth of the width";
  auto& vocab = t.add("vocab", "N", "tokens of the vocabulary", tuned | for_prepare);
  integer(vocab, {0, 1 << 30}, WEFT_FIELD(model.vocab));
  vocab.shown_default = "what the data has; doctor: 50257";
  choice(t.add("block", "pre-norm|plain", "norm, mixer, norm, feed-forward with residuals; or the mixer alone", tuned),
         block_names, WEFT_FIELD(model.block));
  choice(t.add("norm", "layer|rms", "normalisation", tuned), norm_names, WEFT_FIELD(model.norm));
  choice(t.add("mlp", "gelu|swiglu|boom", "feed-forward layer", tuned), mlp_names, WEFT_FIELD(model.mlp));
  choice(t.add("positions", "learned|rotary|none", "how positions enter", tuned), position_names,
         WEFT_FIELD(model.positions));
  yes_no(t.add("bias", "", "linear layers have biases (layer norms always)", tuned), WEFT_FIELD(model.bias));
  yes_no(t.add("tied", "", "the head shares the embedding's weight", tuned), WEFT_FIELD(model.tied));
  real(t.add("dropout", "P", "part of the activations dropped in training", tuned),
       {0, 1, RealRange::Bounds::open_above}, WEFT_FIELD(model.dropout));
  real(t.add("norm-eps", "X", "added to the variance, or mean square, that norms divide by", training),
       {0, 1, RealRange::Bounds::open_below}, WEFT_FIELD(model.norm_eps));
  real(t.add("rotary-theta", "X", "base of the rotary positions' wavelengths", training),
       {0, 1e30, RealRange::Bounds::open_below}, WEFT_FIELD(model.rotary_theta));
}

void add_data(TableMaker& t) {
  t.group = "Data";
  texts(t.add("data", "FILE...", "text or token files to train on, or a folder of `weft prepare`",
              training | for_eval | for_prepare),
        WEFT_FIELD(data.data));
  texts(t.add("valid", "FILE...", "validation files", training | for_eval | for_prepare), WEFT_FIELD(data.valid));
  real(t.add("valid-fraction", "P", "of each data file, its tail, where no --valid is given",
             training | for_eval | for_prepare),
       {0, 1, RealRange::Bounds::open_above}, WEFT_FIELD(data.valid_fraction));
  choice(t.add("data-format", "auto|bytes|u16|u32", "how files are read", training | for_eval), format_names,
         WEFT_FIELD(data.format));
  choice(t.add("sampler", "shuffled|streams", "order of the training windows", training), sampler_names,
         WEFT_FIELD(data.sampler));
  integer(t.add("seq", "N", "tokens of a sequence", tuned | for_eval), {1, 1 << 30}, WEFT_FIELD(train.seq));
}

void add_training(TableMaker& t) {
  t.group = "Training";
  integer(t.add("steps", "N", "optimizer steps", training), {1}, WEFT_FIELD(train.steps));
  integer(t.add("batch", "N", "sequences of a step, over all ranks", tuned), {1, 1 << 30}, WEFT_FIELD(train.batch));
  auto& micro = t.add("micro-batch", "N", "sequences that a rank takes at a time", tuned | for_eval);
  integer(micro, {0, 1 << 30}, WEFT_FIELD(train.micro_batch));
  micro.shown_default = "chosen";
  choice(t.add("optimizer", "adamw|sgd|radam", "", training), optimizer_names, WEFT_FIELD(optim.kind));
  real(t.add("lr", "X", "highest learning rate", training), {0, 1e30, RealRange::Bounds::open_below},
       WEFT_FIELD(schedule.lr));
  choice(t.add("schedule", "cosine|linear|constant", "of the learning rate after the warm-up", training),
         schedule_names, WEFT_FIELD(schedule.kind));
  auto& warmup = t.add("warmup", "N", "steps of linear warm-up", training);
  integer(warmup, {0}, WEFT_FIELD(schedule.warmup));
  warmup.shown_default = "a tenth of the steps, at most 100";
  auto& min_lr = t.add("min-lr", "X", "learning rate at the end", training);
  real(min_lr, {0, 1e30}, WEFT_FIELD(schedule.min_lr));
  min_lr.shown_default = "a tenth of lr";
  real(t.add("beta1", "X", "adamw, radam", training), {0, 1, RealRange::Bounds::open_above}, WEFT_FIELD(optim.beta1));
  real(t.add("beta2", "X", "adamw, radam", training), {0, 1, RealRange::Bounds::open_above}, WEFT_FIELD(optim.beta2));
  real(t.add("eps", "X", "adamw, radam", training), {1e-30, 1e30}, WEFT_FIELD(optim.eps));
  real(t.add("momentum", "X", "sgd", training), {0, 1, RealRange::Bounds::open_above}, WEFT_FIELD(optim.momentum));
  real(t.add("weight-decay", "X", "of matrices and embeddings", training), {0}, WEFT_FIELD(optim.weight_decay));
  real(t.add("clip", "X", "most global gradient norm; 0: none", training), {0}, WEFT_FIELD(optim.clip));
  integer(t.add("nonfinite-limit", "N", "steps in a row whose loss or gradient is not finite before the run fails",
                training),
          {0}, WEFT_FIELD(train.nonfinite_limit));
}

void add_layout(TableMaker& t) {
  t.group = "Layout";
  auto& dp = t.add("dp", "N", "data parallel ranks", tuned | for_eval);
  integer(dp, {0, 1 << 24}, WEFT_FIELD(layout.dp));
  dp.shown_default = "what the other axes leave";
  integer(t.add("tp", "N", "tensor parallel ranks", tuned | for_eval | for_sample), {1, 1 << 24},
          WEFT_FIELD(layout.tp));
  choice(t.add("tp-sequence", "auto|on|off", "norms and dropout on 1/tp of the rows", tuned | for_eval),
         tp_sequence_names, WEFT_FIELD(layout.tp_sequence));
  integer(t.add("sp", "N", "sequence parallel ranks", tuned | for_eval), {1, 1 << 24}, WEFT_FIELD(layout.sp));
  choice(t.add("sp-attention", "auto|ring|exchange", "keys and values go round the ranks, or heads change places",
               tuned | for_eval),
         sp_attention_names, WEFT_FIELD(layout.sp_attention));
  auto& parts = t.add("relay-parts", "N", "parts of a batch that a recurrence hands from sp rank to sp rank one by one",
                      tuned | for_eval | for_lens);
  integer(parts, {0, 1 << 24}, WEFT_FIELD(layout.relay_parts));
  parts.shown_default = "chosen by its size";
  integer(t.add("pp", "N", "pipeline stages", training), {1, 1 << 24}, WEFT_FIELD(layout.pp));
  integer(t.add("zero", "0..3", "what dp and sp ranks share out: 1 optimizer state, 2 gradients too, 3 parameters too",
                training),
          {0, 3}, WEFT_FIELD(layout.zero));
  choice(t.add("recompute", "none|attention|block",
               "what backward computes again: the sequence mixers, or all of each block", training),
         recompute_names, WEFT_FIELD(layout.recompute));
  real(t.add("bucket-mb", "X", "MiB of a gradient bucket", training), {0, 1 << 20, RealRange::Bounds::open_below},
       WEFT_FIELD(layout.bucket_mb));
  choice(t.add("grad-wire", "f32|bf16", "how gradients travel", training), wire_names, WEFT_FIELD(layout.grad_wire));
}

void read_resume(Options& o, const Texts& t) {
  o.run.resume_path.clear();
  if (t.front() == "auto") {
    o.run.resume = ResumeChoice::automatic;
  } else if (t.front() == "none") {
    o.run.resume = ResumeChoice::none;
  } else if (t.front().empty()) {
    throw BadValue("auto, none or the path of a checkpoint");
  } else {
    o.run.resume = ResumeChoice::path;
    o.run.resume_path = t.front();
  }
}

void add_run(TableMaker& t) {
  t.group = "Run";
  text(t.add("out", "DIR", "the run's folder", training | for_prepare | for_lens | for_export | for_import),
       WEFT_FIELD(run.out));
  auto& resume = t.add("resume", "auto|none|PATH", "the checkpoint to go on from; auto: the folder's latest", training);
  resume.read = read_resume;
  resume.write = [](const Options& o) {
    return Texts{o.run.resume == ResumeChoice::automatic ? "auto"
                 : o.run.resume == ResumeChoice::none    ? "none"
                                                         : o.run.resume_path};
  };
  integer(t.add("valid-every", "N", "steps; 0: at the end only", training), {0}, WEFT_FIELD(train.valid_every));
  auto& valid_tokens = t.add("valid-tokens", "N", "targets of one validation; 0: all", training | for_eval);
  integer(valid_tokens, {0}, WEFT_FIELD(train.valid_tokens));
  integer(t.add("checkpoint-every", "N", "steps; 0: at the end only", training), {0},
          WEFT_FIELD(train.checkpoint_every));
  choice(t.add("async-checkpoint", "auto|on|off",
               "write checkpoints while training goes on, from a copy; auto: not under --memory-limit on the CPU",
               training),
         async_names, WEFT_FIELD(train.async_checkpoint));
  integer(t.add("keep", "N", "checkpoints; 0: all", training), {0}, WEFT_FIELD(train.keep));
  integer(t.add("log-every", "N", "steps", training), {1}, WEFT_FIELD(train.log_every));
  auto& max_time = t.add("max-time", "TIME", "save and end with status 75 before this time is over", training);
  seconds(max_time, WEFT_FIELD(train.max_time));
  max_time.shown_default = "none";
  integer(t.add("seed", "N", "", training | for_sample | for_lens), {0}, WEFT_FIELD(run.seed));
  choice(
      t.add("dtype", "auto|f32|bf16", "of the computation; auto: bf16 where the hardware has it", compute | for_export),
      dtype_names, WEFT_FIELD(run.dtype));
  choice(t.add("device", "auto|cpu|cuda", "auto: a GPU where there is one", compute), device_names,
         WEFT_FIELD(run.device));
  choice(t.add("gpu-comm", "auto|nccl|mpi", "collectives of GPUs; auto: NCCL where each rank has a GPU of its own",
               compute),
         gpu_comm_names, WEFT_FIELD(run.gpu_comm));
  auto& products = t.add("gemm-table", "FILE", "algorithms of GPU products, from `weft doctor --tune`", training);
  text(products, WEFT_FIELD(run.gemm_table));
  products.shown_default = "the run's, or a fixed rule";
  auto& tune =
      t.add("tune", "FILE", "measure the algorithms of a training step's GPU products, and write them", for_doctor);
  text(tune, WEFT_FIELD(run.tune));
  tune.shown_default = "no";
  choice(t.add("cuda-graph", "auto|off", "record a step on the GPU once and replay it", training), graph_names,
         WEFT_FIELD(train.cuda_graph));
  auto& threads = t.add("threads", "N", "of a rank", compute | for_prepare | for_export | for_import);
  integer(threads, {0, 4096}, WEFT_FIELD(run.threads));
  threads.shown_default = "its share of the cores";
  auto& memory = t.add("memory-limit", "SIZE", "a rank's most memory", training | for_eval | for_sample);
  memory.read = [](Options& o, const Texts& x) { o.run.memory_limit = read_bytes(x.front()); };
  memory.write = [](const Options& o) { return Texts{write_bytes(o.run.memory_limit)}; };
  memory.shown_default = "none";
  seconds(t.add("timeout", "TIME", "a collective may stand still before the run fails; 0: for ever",
                training | for_eval | for_lens),
          WEFT_FIELD(run.timeout));
  yes_no(t.add("quiet", "", "say nothing but errors",
               training | for_eval | for_sample | for_prepare | for_export | for_import),
         WEFT_FIELD(run.quiet));
  yes_no(t.add("json", "", "print JSON", for_doctor | for_eval | for_lens), WEFT_FIELD(run.json));
}

void add_others(TableMaker& t) {
  t.group = "Sampling";
  text(t.add("checkpoint", "DIR", "a checkpoint, or a run's folder (its latest)", for_eval | for_sample | for_export),
       WEFT_FIELD(sample.checkpoint));
  text(t.add("from", "PATH", "a Hugging Face folder, or a safetensors file beside its config.json", for_import),
       WEFT_FIELD(import.from));
  auto& logits = t.add("logits", "FILE", "write tokens, targets and logits to this safetensors file, too", for_eval);
  text(logits, WEFT_FIELD(eval.logits));
  logits.shown_default = "no";
  text(t.add("prompt", "TEXT", "what the text begins with", for_sample | for_demo), WEFT_FIELD(sample.prompt));
  t.rows.back().shown_default = "a line break";
  integer(t.add("tokens", "N", "to generate", for_sample | for_demo), {1}, WEFT_FIELD(sample.tokens));
  real(t.add("temperature", "X", "0: always the likeliest token", for_sample | for_demo), {0},
       WEFT_FIELD(sample.temperature));
  integer(t.add("top-k", "N", "among the N likeliest; 0: all", for_sample | for_demo), {0}, WEFT_FIELD(sample.top_k));
  real(t.add("top-p", "P", "among the likeliest that make up P", for_sample | for_demo),
       {0, 1, RealRange::Bounds::open_below}, WEFT_FIELD(sample.top_p));

  t.group = "Tokenizer";
  choice(t.add("tokenizer", "bytes|words|bpe|unigram", "", for_prepare), tokenizer_names,
         WEFT_FIELD(prepare.tokenizer));
  text(t.add("tokenizer-file", "FILE", "a saved tokenizer", for_prepare | for_sample | for_eval),
       WEFT_FIELD(prepare.tokenizer_file));
  integer(t.add("min-count", "N", "rarer words become <unk>", for_prepare), {1}, WEFT_FIELD(prepare.min_count));
  yes_no(t.add("replace", "", "replace an output folder of an earlier prepare", for_prepare),
         WEFT_FIELD(prepare.replace));

  t.group = "Launch";
  auto& ranks = t.add("ranks", "N", "processes", for_launch | for_demo);
  integer(ranks, {0, 1 << 24}, WEFT_FIELD(launch.ranks));
  ranks.letter = 'n';
  ranks.shown_default = "one a GPU; 2 without";
  auto& cores = t.add("cores-per-rank", "C", "CPU cores of a rank", for_launch | for_demo);
  integer(cores, {0, 1 << 20}, WEFT_FIELD(launch.cores_per_rank));
  cores.shown_default = "an equal share";
  text(t.add("hostfile", "FILE", "hosts, one a line, as mpirun reads them", for_launch), WEFT_FIELD(launch.hostfile));
  seconds(t.add("grace", "TIME", "ranks that do not go on after a signal are killed after", for_launch | for_demo),
          WEFT_FIELD(launch.grace));

  t.group = "Lens";
  auto& models = t.add("models", "NAME...", "mixers to lay side by side", for_lens);
  texts(models, WEFT_FIELD(lens.models));
  models.shown_default = "attention lstm sru qrnn mean";
  auto& lengths = t.add("lengths", "N...", "tokens of a sequence", for_lens);
  integers(lengths, {1, 1 << 24}, WEFT_FIELD(lens.lengths));
  lengths.shown_default = "128 512 2048";
  integers(t.add("widths", "N...", "d-model", for_lens), {1, 1 << 20}, WEFT_FIELD(lens.widths));
  auto& sequences = t.add("sequences", "N...", "at a time: one, and a full batch", for_lens);
  integers(sequences, {1, 1 << 20}, WEFT_FIELD(lens.batches));
  sequences.shown_default = "1 8";
  auto& axes = t.add("axes", "sp|tp|dp...", "what ranks share out: tokens, channels, sequences", for_lens);
  texts(axes, WEFT_FIELD(lens.axes));
  axes.read = [](Options& o, const Texts& x) {
    for (const std::string& one : x) read_choice(one, lens_axis_names);
    o.lens.axes = x;
  };
  axes.shown_default = "sp tp dp";
  auto& counts = t.add("rank-counts", "N...", "of the ranks that there are, numbers to spread over", for_lens);
  integers(counts, {1, 1 << 24}, WEFT_FIELD(lens.rank_counts));
  counts.shown_default = "2, 4, 8 … and all";
  integer(t.add("repeats", "N", "timed passes; the median counts", for_lens), {1, 1000}, WEFT_FIELD(lens.repeats));
  integer(t.add("recall", "STEPS", "train each for so many steps on recalling what was said before; 0: not", for_lens),
          {0, 1 << 20}, WEFT_FIELD(lens.recall_steps));

  t.group = "Report";
  text(t.add("run", "DIR", "the run's folder", for_report), WEFT_FIELD(report.run));
  yes_no(t.add("flight", "", "show what each rank was doing last, and its latest collectives", for_report),
         WEFT_FIELD(report.flight));
}

template <class Names, class Enum>
std::string_view pick(const Names& names, Enum choice) {
  return names[static_cast<std::size_t>(choice)];
}

}  // namespace

const std::vector<OptionRow>& option_table() {
  static const std::vector<OptionRow> rows = [] {
    TableMaker maker;
    add_model(maker);
    add_data(maker);
    add_training(maker);
    add_layout(maker);
    add_run(maker);
    add_others(maker);
    return std::move(maker.rows);
  }();
  return rows;
}

const std::vector<CommandRow>& command_table() {
  static const std::vector<CommandRow> rows = {
      {"demo", for_demo, "weft demo [options]", "train a small transformer on text of this machine, sample, report"},
      {"train", for_train, "weft train --data FILE... [options]",
       "train; under mpirun or srun with their ranks, alone with one"},
      {"launch", for_launch, "weft launch [-n N] [options] -- COMMAND [options]",
       "start one bound rank per GPU (or share of the cores) of train, eval, lens or doctor"},
      {"eval", for_eval, "weft eval --checkpoint DIR --data FILE... [options]",
       "loss and bits per byte of a checkpoint"},
      {"sample", for_sample, "weft sample --checkpoint DIR [options]", "text from a checkpoint", "checkpoint"},
      {"prepare", for_prepare, "weft prepare --out DIR [options] FILE...", "text files to token files", "data"},
      {"export", for_export, "weft export --checkpoint DIR --out DIR [options]",
       "a checkpoint's model for Hugging Face's GPT2LMHeadModel or LlamaForCausalLM", "checkpoint"},
      {"import", for_import, "weft import --out DIR [options] PATH",
       "a Hugging Face folder of GPT2LMHeadModel or LlamaForCausalLM as a run's folder", "from"},
      {"report", for_report, "weft report DIR", "write report.html of a run's folder", "run"},
      {"lens", for_lens, "weft lens [options]",
       "work, span, time, memory, gradient reach and speed-up over ranks of sequence mixers side by side", "models"},
      {"doctor", for_doctor, "weft doctor [options]",
       "this machine, its ranks, what is wrong; --tune: the fastest products of the model described"},
  };
  return rows;
}

const CommandRow* find_command(std::string_view name) {
  const auto found = std::ranges::find(command_table(), name, &CommandRow::name);
  return found == command_table().end() ? nullptr : &*found;
}

void apply_command_defaults(Options& options) {
  if (options.command == "demo") {
    options.model.name = "demo";
    options.run.out = "out/demo";
    options.launch.ranks = 0;
  } else if (options.command == "doctor") {
    options.model.name = "gpt2";
    options.model.vocab = 50257;
  } else if (options.command == "lens") {
    options.run.out = "out/lens";
  } else if (options.command == "prepare" || options.command == "export" || options.command == "import") {
    options.run.out.clear();
  }
}

std::string_view name_of(NormChoice choice) { return pick(norm_names, choice); }
std::string_view name_of(BlockChoice choice) { return pick(block_names, choice); }
std::string_view name_of(MlpChoice choice) { return pick(mlp_names, choice); }
std::string_view name_of(PositionChoice choice) { return pick(position_names, choice); }
std::string_view name_of(DataFormatChoice choice) { return pick(format_names, choice); }
std::string_view name_of(SamplerChoice choice) { return pick(sampler_names, choice); }
std::string_view name_of(TokenizerChoice choice) { return pick(tokenizer_names, choice); }
std::string_view name_of(OptimizerChoice choice) { return pick(optimizer_names, choice); }
std::string_view name_of(ScheduleChoice choice) { return pick(schedule_names, choice); }
std::string_view name_of(DTypeChoice choice) { return pick(dtype_names, choice); }
std::string_view name_of(DeviceChoice choice) { return pick(device_names, choice); }
std::string_view name_of(WireChoice choice) { return pick(wire_names, choice); }
std::string_view name_of(GraphChoice choice) { return pick(graph_names, choice); }

}  // namespace weft
