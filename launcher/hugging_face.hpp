// Weft's transformers as Hugging Face's classes name and lay them out: GPT2LMHeadModel and LlamaForCausalLM.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/tensor/view.hpp"
#include "models/config.hpp"

namespace weft {

/// One tensor of their file: rows of one of Weft's parameters.
struct HuggingFaceTensor {
  std::string name;
  std::string parameter;
  Shape shape;                 ///< as it stands in their file
  std::int64_t first_row = 0;  ///< of the parameter
  std::int64_t rows = 0;
  bool transposed = false;     ///< their Conv1D holds [in, out]
};

/// All tensors of a model. Throws UserError that names what neither class has (a mixer, a kind of positions, biases, …).
std::vector<HuggingFaceTensor> hugging_face_tensors(const LmConfig& config);

/// What their config.json says of a model that hugging_face_tensors() took.
nlohmann::json hugging_face_config(const LmConfig& config, DType dtype);

}  // namespace weft
