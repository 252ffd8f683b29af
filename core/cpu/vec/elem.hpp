// What activations are stored as.
#pragma once
#include <cstdint>

namespace weft::cpu {

enum class Elem : std::uint8_t { f32, bf16 };

}  // namespace weft::cpu
