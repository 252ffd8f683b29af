// One time step's product of a recurrence, by oneDNN.
#pragma once
#include <memory>

#include "core/cpu/step_product.hpp"

namespace weft::cpu {

/// In the activations' dtype, one primitive a part.
std::unique_ptr<StepProduct> make_dnnl_steps(const StepShape& shape, std::int64_t steps, int threads);

}  // namespace weft::cpu
