// What a case's outputs and gradients must be.
#pragma once
#include "tests/unit/op_cases/run.hpp"

namespace weft::test {

/// Finite differences of Σ cotangent·output with respect to one input: along single elements (all of a small input, a
/// sample of a large one) and along random directions through all elements.
struct GradientReference {
  struct Element {
    std::size_t index;
    double slope;
  };
  struct Direction {
    std::vector<double> direction;
    double slope;
  };
  std::vector<Element> elements;
  std::vector<Direction> directions;
};

struct Reference {
  Values outputs;
  std::map<std::string, GradientReference> gradients;
};

/// The reference of a case whose activations are stored as `activation`; kept for the next call.
const Reference& reference(const OpCase& op, DType activation);

/// Norm of a − b over the norm of b. Infinities must agree and do not count; a NaN is infinitely wrong. What is exactly
/// zero must be it to 1e-12.
double relative_error(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace weft::test
