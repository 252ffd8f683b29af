#include "launcher/options_check.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/base/error.hpp"
#include "launcher/options_table.hpp"
#include "models/registry.hpp"

namespace weft {
namespace {

// Said before any rank is started; the folder itself is made by the run.
void check_output(const std::string& out) {
  std::error_code error;
  std::filesystem::path place = std::filesystem::absolute(out);
  while (!std::filesystem::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  if (!std::filesystem::is_directory(place, error))
    fail_user("--out: found `{}`, but {} is not a folder; a folder that can be made or written would be right", out,
              place.string());
  if (::access(place.c_str(), W_OK | X_OK) != 0)
    fail_user("--out: found `{}`, but {} cannot be written: {}", out, place.string(), std::strerror(errno));
}

// Said before anything is measured.
void check_output_file(std::string_view option, const std::string& file) {
  const std::filesystem::path path = std::filesystem::absolute(file), folder = path.parent_path();
  std::error_code error;
  if (!path.has_filename() || std::filesystem::is_directory(path, error))
    fail_user("--{}: found `{}`, a folder; a file would be right", option, file);
  if (!std::filesystem::is_directory(folder, error))
    fail_user("--{}: found `{}`, but {} is not a folder; a file in a folder that exists would be right", option, file,
              folder.string());
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    fail_user("--{}: found `{}`, but {} cannot be written: {}", option, file, folder.string(), std::strerror(errno));
}

}  // namespace

void check_fit(const Options& o) {
  const ModelOptions& m = o.model;
  if (m.d_model % m.heads != 0) fail_user("--heads: found {}, expected a divisor of --d-model {}", m.heads, m.d_model);
  if (m.heads % m.kv_heads != 0)
    fail_user("--kv-heads: found {}, expected a divisor of --heads {}", m.kv_heads, m.heads);
  if (m.positions == PositionChoice::rotary && (m.d_model / m.heads) % 2 != 0)
    fail_user("--heads: found {}, heads of --d-model {} are then {} wide, but rotary positions need an even width",
              m.heads, m.d_model, m.d_model / m.heads);
  if (m.mlp == MlpChoice::boom && m.d_ff % m.d_model != 0)
    fail_user("--d-ff: found {}, expected a multiple of --d-model {} for --mlp boom", m.d_ff, m.d_model);
  if (o.train.micro_batch > o.train.batch)
    fail_user("--micro-batch: found {}, expected at most --batch {}", o.train.micro_batch, o.train.batch);
  if (o.schedule.min_lr > o.schedule.lr)
    fail_user("--min-lr: found {}, expected at most --lr {}", o.schedule.min_lr, o.schedule.lr);
}

void resolve(Options& o) {
  ModelOptions& m = o.model;
  if (m.kv_heads == 0) m.kv_heads = m.heads;
  if (m.d_ff == 0) m.d_ff = m.mlp == MlpChoice::swiglu ? (8 * m.d_model / 3 + 63) / 64 * 64 : 4 * m.d_model;
  if (o.schedule.min_lr < 0) o.schedule.min_lr = o.schedule.lr / 10;
  if (o.schedule.warmup < 0) o.schedule.warmup = std::min<std::int64_t>(100, o.train.steps / 10);
}

void check_same_model(const Options& now, const Options& before, std::string_view where) {
  constexpr std::array<std::string_view, 9> names = {"mixer", "block",    "norm",     "mlp",         "positions",
                                                     "heads", "kv-heads", "norm-eps", "rotary-theta"};
  const bool heads = find_mixer(now.model.mixer).uses_heads;
  const bool rotary = now.model.positions == PositionChoice::rotary;
  for (const OptionRow& row : option_table()) {
    if (std::ranges::find(names, row.name) == names.end()) continue;
    if ((!heads && row.name.ends_with("heads")) || (!rotary && row.name == "rotary-theta")) continue;
    const std::string found = row.write(now).front(), right = row.write(before).front();
    if (found != right)
      fail_user("--{}: found {}, the model of {} has {}; the same would be right", row.name, found, where, right);
  }
}

void check_needed(const Options& o) {
  if (o.command == "train" || o.command == "demo") check_output(o.run.out);
  if (!o.run.tune.empty()) check_output_file("tune", o.run.tune);
  if (!o.eval.logits.empty()) {
    check_output_file("logits", o.eval.logits);
    if (std::filesystem::exists(o.eval.logits))
      fail_user("--logits: {} exists; another name would be right", o.eval.logits);
  }
  if (o.command == "train" && o.data.data.empty())
    fail_user("--data is missing: `weft train --data FILE` needs a text file or token files to train on");
  if (o.command == "prepare" && o.data.data.empty()) fail_user("FILE is missing: `weft prepare --out DIR FILE...`");
  if (o.command == "prepare" && o.run.out.empty()) fail_user("--out is missing: `weft prepare --out DIR FILE...`");
  if (o.command == "export" && o.run.out.empty())
    fail_user(
        "--out is missing: `weft export --checkpoint DIR --out DIR`, a folder for model.safetensors and config.json");
  if (o.command == "import" && o.import.from.empty())
    fail_user("PATH is missing: `weft import --out DIR PATH`, a Hugging Face folder or one safetensors file");
  if (o.command == "import" && o.run.out.empty())
    fail_user("--out is missing: `weft import --out DIR PATH`, a folder for the run");
  if ((o.command == "eval" || o.command == "sample" || o.command == "export") && o.sample.checkpoint.empty())
    fail_user("--checkpoint is missing: a checkpoint's folder, or a run's folder for its latest");
  if (o.command == "report" && o.report.run.empty()) fail_user("DIR is missing: `weft report DIR`, a run's folder");
  if (o.command == "launch" && o.launch.program.empty())
    fail_user("nothing to launch: expected `weft launch -n N -- train --data FILE ...`");
}

}  // namespace weft
