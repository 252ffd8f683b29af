// From --data, --valid, --valid-fraction and --data-format to token streams.
#pragma once
#include "core/data/dataset.hpp"
#include "launcher/options.hpp"

namespace weft {

DatasetOptions dataset_options(const DataOptions& options);

/// Throws UserError as open_dataset does.
Dataset open_data(const DataOptions& options);

}  // namespace weft
