// weft export: a checkpoint's model as Hugging Face's classes load it.
#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/dtype.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/safetensors.hpp"
#include "launcher/hugging_face.hpp"
#include "launcher/ranks.hpp"
#include "launcher/run_files.hpp"
#include "launcher/saved_model.hpp"

namespace weft {
namespace {

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
  const std::filesystem::path out = options.run.out, weights = out / "model.safetensors";
  make_output_folder(out, "--out");
  if (std::filesystem::exists(weights)) fail_user("--out: {} exists; another folder would be right", weights.string());
  write_safetensors(weights, sources, {{"format", "pt"}});
  write_file_atomic(out / "config.json", hugging_face_config(config, dtype).dump(2) + "\n");
  if (!options.run.quiet)
    fmt::print("{}\n{} parameters of {} as {}\n", out.string(), saved.built->store.global_numel(),
               saved.folder.string(), hugging_face_config(config, dtype).at("architectures").at(0).get<std::string>());
  return ExitStatus::done;
}

}  // namespace

ExitStatus run_export(const Options& options) {
  Options on_cpu = options;
  on_cpu.run.device = DeviceChoice::cpu;
  return with_ranks(on_cpu, [&](MpiRuntime& mpi, CommLog& log) { return export_checkpoint(on_cpu, mpi, log); });
}

}  // namespace weft
