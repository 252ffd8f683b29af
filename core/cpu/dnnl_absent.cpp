// In place of oneDNN in a build without it.
#include "core/base/error.hpp"
#include "core/cpu/backend.hpp"
#include "core/cpu/dnnl_products.hpp"

namespace weft::cpu {

std::unique_ptr<DnnlProducts> make_dnnl_products() { fail("this build has no oneDNN (WEFT_DNNL)"); }

bool prefers_dnnl() { return false; }

std::string dnnl_library() { return {}; }

}  // namespace weft::cpu
