// A model's config.json as Hugging Face's classes write it, as options of a training.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/options.hpp"

namespace weft {

struct HuggingFaceModel {
  ModelOptions model;
  std::int64_t seq = 0;            ///< the longest sequence
  std::vector<std::string> notes;  ///< what was not taken as it stands, though the model computes the same
};

/// GPT2LMHeadModel or LlamaForCausalLM, of transformers 4 and 5. Throws UserError, one line with file, field, what was found and
/// what would be right, on another architecture and on every field that Weft's model would not follow. `file` stands for the
/// text in messages.
HuggingFaceModel parse_hugging_face_config(std::string_view text, const std::string& file);

}  // namespace weft
