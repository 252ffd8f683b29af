// Tables of matrix products' algorithms: read for a run, and measured by `weft doctor --tune`.
#pragma once
#include <filesystem>

#include "core/kernels/product_table.hpp"
#include "launcher/commands.hpp"

namespace weft {

/// The name of the table in a run's folder.
inline constexpr const char* run_table_name = "gemm.table";

/// Throws UserError that names the file, the line, what was found and what would be right.
ProductTable read_product_table(const std::filesystem::path& path);

/// Takes one training step of the model, batch and layout of the options, in which each product tries its algorithms, and
/// writes the fastest of all ranks' products to options.run.tune. Throws UserError where products have one algorithm.
ExitStatus tune_products(const Options& options);

}  // namespace weft
