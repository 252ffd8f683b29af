// The one table of operation cases. A case says how to run kernels through their slots and what a float64 oracle of the
// forward pass gives; gradients are held against finite differences of that oracle. Nothing in a case knows the
// backend, so that every backend goes through the same table.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/kernels/table.hpp"

namespace weft::test {

/// What an operand is stored as: an activation in the dtype under test, the others always in theirs.
enum class Stored : std::uint8_t { activation, f32, f64, i32, bytes };

/// Whether the kernel replaces what a gradient buffer holds or adds to it.
enum class GradientMode : std::uint8_t { none, overwritten, added };

struct Input {
  std::string name;
  Shape shape;
  Stored stored = Stored::activation;
  GradientMode gradient = GradientMode::none;
  /// Empty: standard normal values, times `scale`, plus `offset`, drawn from the case's and the input's name.
  std::vector<double> values{};
  double scale = 1, offset = 0;
};

struct Output {
  std::string name;
  Shape shape;
  Stored stored = Stored::activation;
  /// Whether gradients flow from it; its cotangent is random unless given.
  bool differentiable = true;
  std::vector<double> cotangent{};
  /// The input whose memory it takes, if any.
  std::string in_place_of{};
};

using Values = std::map<std::string, std::vector<double>>;

class Run;

struct OpCase {
  std::string name;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  /// Fills `out` (sized to the outputs) from the inputs as stored.
  std::function<void(const Values& in, Values& out)> oracle;
  std::function<void(Run& run)> forward;
  /// Fills run.gradient(…) from run.cotangent(…), after forward; empty for operations without gradients.
  std::function<void(Run& run)> backward{};
  bool f32_only = false;
  double f32_tolerance = 1e-5, bf16_tolerance = 1e-2;  ///< norm of the error over the norm of what is right
};

std::vector<OpCase> norm_cases();
std::vector<OpCase> dropout_cases();
std::vector<OpCase> elementwise_cases();
std::vector<OpCase> embedding_cases();
std::vector<OpCase> attention_cases();
std::vector<OpCase> relative_attention_cases();
std::vector<OpCase> linear_cases();
std::vector<OpCase> cross_entropy_cases();
std::vector<OpCase> optim_cases();
std::vector<OpCase> scan_cases();
std::vector<OpCase> recurrent_cases();
std::vector<OpCase> channel_cases();

/// All of them.
std::vector<OpCase> all_op_cases();

/// The key of every case's dropout.
inline constexpr PhiloxKey dropout_key{0x5eed1234u, 0x0badcafeu};

/// The oracle's factor of an element: 1/(1−p) if it is kept, else 0.
double dropout_factor(float p, std::int64_t global_index);

/// A spec for `rows` of `cols` with the case's key left for Run::with_key.
DropoutSpec dropout_spec(float p, TokenMap rows, std::int64_t cols_global, std::int64_t col_begin = 0);

/// One interval of `length` tokens from `begin` on of sequences of `seq_global` tokens.
TokenMap token_map(std::int64_t length, std::int64_t seq_global, std::int64_t begin = 0,
                   std::int64_t first_sequence = 0);

}  // namespace weft::test
