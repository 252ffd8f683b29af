// The shape of a language model.
#pragma once
#include <cstdint>
#include <string>

namespace weft {

enum class NormStyle : std::uint8_t { layer, rms };
/// boom (Merity 2019): the sum of the chunks, as wide as the model, of GELU(W·x); no second matrix.
enum class FeedForwardStyle : std::uint8_t { gelu, swiglu, boom };
/// pre_norm: x += mixer(norm(x)), x += feed_forward(norm(x)). plain: x = mixer(x), for mixers with a highway of their own.
enum class BlockStyle : std::uint8_t { pre_norm, plain };
enum class PositionStyle : std::uint8_t { learned, rotary, none };

struct LmConfig {
  std::string mixer = "attention";
  BlockStyle block = BlockStyle::pre_norm;
  NormStyle norm = NormStyle::layer;
  FeedForwardStyle feed_forward = FeedForwardStyle::gelu;
  PositionStyle positions = PositionStyle::learned;
  bool bias = true;
  bool tied = true;
  std::int64_t vocab = 256;
  std::int64_t layers = 6;
  std::int64_t d_model = 384;
  std::int64_t heads = 6;
  std::int64_t kv_heads = 6;
  std::int64_t d_ff = 1536;          ///< boom: a multiple of d_model
  std::int64_t attention_every = 1;  ///< SRU++, SHA-RNN: blocks of which the last attends
  std::int64_t attention_width = 0;  ///< SRU++: width of attention; 0: d_model / 8
  std::int64_t max_seq = 256;        ///< rows of the learned position table
  float dropout = 0;
  float norm_eps = 1e-5f;
  float rotary_theta = 10000;
};

}  // namespace weft
