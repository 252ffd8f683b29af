#include "launcher/data_setup.hpp"

namespace weft {

DatasetOptions dataset_options(const DataOptions& options) {
  DatasetOptions dataset;
  dataset.data.assign(options.data.begin(), options.data.end());
  dataset.valid.assign(options.valid.begin(), options.valid.end());
  dataset.valid_fraction = options.valid_fraction;
  switch (options.format) {
    case DataFormatChoice::automatic: dataset.file.format = TokenFormat::automatic; break;
    case DataFormatChoice::bytes: dataset.file.format = TokenFormat::bytes; break;
    case DataFormatChoice::u16: dataset.file.format = TokenFormat::u16; break;
    case DataFormatChoice::u32: dataset.file.format = TokenFormat::u32; break;
  }
  return dataset;
}

Dataset open_data(const DataOptions& options) {
  if (options.data.empty()) fail_user("--data: missing; a file of text or tokens, or a folder of `weft prepare`, is needed");
  return open_dataset(dataset_options(options));
}

}  // namespace weft
