#include "tests/unit/op_cases/op_case.hpp"

#include <iterator>

namespace weft::test {

std::vector<OpCase> all_op_cases() {
  std::vector<OpCase> all;
  for (const auto family :
       {norm_cases, dropout_cases, elementwise_cases, embedding_cases, attention_cases, relative_attention_cases,
        linear_cases, cross_entropy_cases, optim_cases, scan_cases, recurrent_cases, channel_cases}) {
    std::vector<OpCase> cases = family();
    std::move(cases.begin(), cases.end(), std::back_inserter(all));
  }
  return all;
}

double dropout_factor(float p, std::int64_t global_index) {
  if (p == 0) return 1;
  return uniform(philox_word(dropout_key, static_cast<std::uint64_t>(global_index))) >= p
             ? 1 / (1 - static_cast<double>(p))
             : 0;
}

DropoutSpec dropout_spec(float p, TokenMap rows, std::int64_t cols_global, std::int64_t col_begin) {
  DropoutSpec spec;
  spec.p = p;
  spec.rows = rows;
  spec.cols_global = cols_global;
  spec.col_begin = col_begin;
  return spec;
}

TokenMap token_map(std::int64_t length, std::int64_t seq_global, std::int64_t begin, std::int64_t first_sequence) {
  TokenMap map;
  map.first_sequence = first_sequence;
  map.seq_global = seq_global;
  map.seq_local = length;
  map.begin = {begin, 0};
  map.first_length = length;
  return map;
}

}  // namespace weft::test
