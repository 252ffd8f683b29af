#include "core/cpu/backend.hpp"

namespace weft::cpu {

std::unique_ptr<BackendState> make_state() { return std::make_unique<BackendState>(); }

}  // namespace weft::cpu
