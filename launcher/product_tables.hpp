// Tables of matrix products' algorithms: read for a run, and measured by `weft doctor --tune`.
#pragma once
#include "core/kernels/product_table.hpp"
#include "launcher/commands.hpp"
#include "parallel/comm/communicator.hpp"

namespace weft {

/// The name of the table in a run's folder.
inline constexpr const char* run_table_name = "gemm.table";

/// What a training run goes by: --gemm-table's, else what an earlier start left in the run's folder, else none. Rank 0 reads
/// it for all ranks. Throws UserError that names the file, the line, what was found and what would be right.
ProductTable product_table_of_run(Communicator& world, const RunOptions& options);

/// Takes one training step of the model, batch and layout of the options, in which each product tries its algorithms, and
/// writes the fastest of all ranks' products to options.run.tune. Throws UserError where products have one algorithm.
ExitStatus tune_products(const Options& options);

}  // namespace weft
