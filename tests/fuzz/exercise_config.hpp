// What the fuzz target and the mutation test do with a hostile config.json.
#pragma once
#include <string>
#include <string_view>

#include "core/base/error.hpp"
#include "launcher/hugging_face_config.hpp"

namespace weft::test {

/// True when the model was accepted: then its sizes are such that it can be built.
inline bool exercise_config(std::string_view text) {
  try {
    const HuggingFaceModel result = parse_hugging_face_config(text, "input");
    const ModelOptions& model = result.model;
    for (const std::int64_t size :
         {result.seq, model.vocab, model.layers, model.d_model, model.heads, model.kv_heads, model.d_ff})
      WEFT_CHECK(size > 0 && size <= std::int64_t{1} << 30);
    WEFT_CHECK(model.d_model % model.heads == 0 && model.heads % model.kv_heads == 0);
    WEFT_CHECK(model.dropout >= 0 && model.dropout < 1 && model.norm_eps > 0 && model.rotary_theta > 0);
    return true;
  } catch (const UserError& error) {
    WEFT_CHECK(std::string(error.what()).find('\n') == std::string::npos, "more than one line: {}", error.what());
    return false;
  }
}

}  // namespace weft::test
