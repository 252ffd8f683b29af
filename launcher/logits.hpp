// Logits of a model on the host, and of a whole evaluation in a file.
#pragma once
#include <filesystem>
#include <span>

#include "launcher/evaluation.hpp"

namespace weft {

/// Logits f32 [M, V] of hidden states [M, D]. Blocks until they are there; collective where the vocabulary is shared out.
void logits_on_host(Engine& engine, const LanguageModel& model, OpContext& cx, const Tensor& hidden,
                    std::span<float> logits);

/// Writes the windows that evaluate() goes through as safetensors: `tokens` and `targets` i32 [windows, seq] (target -1: past
/// the end of a stream) and `logits` f32 [windows, seq, vocab]. On a mesh of one rank. False, and no file, when `stop` said so.
/// Throws IoError.
bool write_logits(const std::filesystem::path& path, const Worker& worker, const LanguageModel& model,
                  const EvalWindows& windows, const EvaluationOptions& options, const std::function<bool()>& stop);

}  // namespace weft
