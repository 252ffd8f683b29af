// What the lens has measured, as a table, JSON, CSV and one page with plots.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "launcher/lens/lens.hpp"

namespace weft {

/// The rows of one rank, the fitted exponents in sequence length and width beside the textbook's, and the rows of more ranks.
std::string format_lens(const LensResult& result);

/// One object a row: `model`, `seq`, `d_model`, `batch`, `ranks`, `axis`, `work` (FLOPs, both passes), `span` (levels, as
/// executed), `span_min`, `parallelism`, `forward_ms`, `backward_ms`, `activation_bytes`, `comm_bytes` (sent by all ranks, both passes), `comm` (the same by group,
/// operation and pass), `speedup`, `predicted_speedup`, and each pass's own. Where the mixer does not go over the ranks these are
/// null, and `misfit` says why.
nlohmann::json lens_json(const LensResult& result);

/// Writes lens.json, lens.csv, lens.html and each plot as SVG, and as PNG where the system has cairo, into `folder`; returns the page's path. Throws IoError.
std::filesystem::path write_lens(const LensResult& result, const std::filesystem::path& folder);

}  // namespace weft
