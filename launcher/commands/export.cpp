// weft export: a checkpoint's model as Hugging Face's classes load it.
#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/dtype.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/safetensors.hpp"
#include "launcher/hugging_face.hpp"
#include "launcher/ranks.hpp"
#include "launcher/run_tokenizer.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr const char* weights_name = "model.safetensors";

// Rows of a parameter in the order of their file.
std::vector<float> values_of(const Tensor& parameter, const HuggingFaceTensor& tensor) {
  const std::int64_t columns = parameter.numel() / parameter.shape()[0];
  const auto* rows = static_cast<const float*>(parameter.view().data) + tensor.first_row * columns;
  std::vector<float> values(rows, rows + tensor.rows * columns);
  if (!tensor.transposed) return values;
  for (std::int64_t row = 0; row < tensor.rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column)
      values[static_cast<std::size_t>(column * tensor.rows + row)] = rows[row * columns + column];
  return values;
}

// Pieces come in order: the tensor is laid out with the first, and goes with the last.
SafetensorsSource source_of(const Tensor& parameter, const HuggingFaceTensor& tensor, DType dtype) {
  auto values = std::make_shared<std::vector<float>>();
  const auto fill = [values, parameter, tensor, dtype](std::size_t offset, std::span<std::byte> piece) {
    if (offset == 0) *values = values_of(parameter, tensor);
    const std::size_t size = size_of(dtype), first = offset / size, count = piece.size() / size;
    for (std::size_t i = 0; i < count; ++i) {
      if (dtype == DType::bf16) {
        const bf16 rounded((*values)[first + i]);
        std::memcpy(piece.data() + i * size, &rounded, size);
      } else {
        std::memcpy(piece.data() + i * size, &(*values)[first + i], size);
      }
    }
    if (first + count == values->size()) *values = {};
  };
  return {tensor.name, dtype, tensor.shape, fill};
}

// Returns what is to be said of it.
std::string write_tokenizer(const fs::path& out, const SavedModel& saved) {
  TokenizerPtr tokenizer;
  try {
    tokenizer = model_tokenizer({}, saved);
  } catch (const UserError& error) {
    return fmt::format("without a tokenizer: {}", error.what());
  }
  if (!tokenizer) return "without a tokenizer: none lies in the run's folder or beside its training data";
  const std::string text = tokenizer->hugging_face_json();
  if (text.empty()) {
    if (tokenizer->file_name() != "tokenizer.model")
      return fmt::format("without a tokenizer: Hugging Face has no file for one of {}", tokenizer->kind());
    tokenizer->save(out / tokenizer->file_name());
    return "with tokenizer.model";
  }
  write_file_atomic(out / "tokenizer.json", text);
  // Classes of their own for a kind of model change what the file says.
  write_file_atomic(out / "tokenizer_config.json", "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
  return "with tokenizer.json";
}

// No model is overwritten, nor is another's config or tokenizer; `config` alone marks an export that did not come to its end.
void check_free(const fs::path& out, const std::string& config) {
  const auto refuse = [&](const char* name) {
    if (fs::exists(out / name)) fail_user("--out: {} exists; another folder would be right", (out / name).string());
  };
  for (const char* name : {weights_name, "model.safetensors.index.json", "pytorch_model.bin"}) refuse(name);
  std::ifstream there(out / "config.json", std::ios::binary);
  if (std::string(std::istreambuf_iterator<char>(there), {}) == config) return;
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"}) refuse(name);
}

ExitStatus export_checkpoint(const Options& options, MpiRuntime& mpi, CommLog& log) {
  if (mpi.size() > 1)
    fail_user("export: found {} ranks, one would be right: it takes checkpoints of any layout", mpi.size());
  Session session(options, mpi, log);
  const SavedModel saved = load_saved_model(session, options.sample.checkpoint, options.layout);
  const LmConfig& config = saved.built->model->config();
  const std::vector<HuggingFaceTensor> tensors = hugging_face_tensors(config);
  const DType dtype = options.run.dtype == DTypeChoice::bf16 ? DType::bf16 : DType::f32;
  std::vector<SafetensorsSource> sources;
  for (const HuggingFaceTensor& tensor : tensors) {
    const Parameter* parameter = saved.built->store.find(tensor.parameter);
    WEFT_CHECK(parameter, "the model has no {}", tensor.parameter);
    sources.push_back(source_of(parameter->value(), tensor, dtype));
  }
  const fs::path out = options.run.out;
  const nlohmann::json described = hugging_face_config(config, dtype);
  const std::string config_file = described.dump(2) + "\n";
  check_free(out, config_file);
  make_output_folder(out, "--out");
  // Weights come last: a folder with them is complete, and one without may be exported to again.
  write_file_atomic(out / "config.json", config_file);
  const std::string tokenizer = write_tokenizer(out, saved);
  write_safetensors(out / weights_name, sources, {{"format", "pt"}});
  if (!options.run.quiet)
    print_output("{}\n{} parameters of {} as {}, {}\n", out.string(), saved.built->store.global_numel(),
               saved.folder.string(), described.at("architectures").at(0).get<std::string>(), tokenizer);
  return ExitStatus::done;
}

}  // namespace

ExitStatus run_export(const Options& options) {
  Options on_cpu = options;
  on_cpu.run.device = DeviceChoice::cpu;
  return with_ranks(on_cpu, [&](MpiRuntime& mpi, CommLog& log) { return export_checkpoint(on_cpu, mpi, log); });
}

}  // namespace weft
