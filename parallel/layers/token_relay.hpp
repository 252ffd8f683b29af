// Recurrences that are not linear in their state over the sequence-parallel ranks: each waits for the state that the tokens
// before its own end with. A batch goes in parts, so that the ranks work at different parts at the same time: of P ranks and
// M parts each rank is busy M of M + P − 1 turns.
#pragma once
#include <functional>
#include <utility>
#include <vector>

#include "core/ops/context.hpp"
#include "parallel/build_context.hpp"

namespace weft {

class TokenRelay {
 public:
  /// `states`: how many f32 [B, width] tensors make a state. Throws Error without contiguous tokens.
  TokenRelay(const BuildContext& build, std::int64_t states, std::int64_t width);

  struct Output {
    Tensor y;                  ///< [B, T, …]
    std::vector<Tensor> last;  ///< the states after the last token
  };
  /// The recurrence over some sequences: `inputs` are theirs, `first` the states before their first token, undefined for zeros.
  using Recurrence = std::function<Output(OpContext& cx, std::vector<Tensor> inputs, const std::vector<Tensor>& first)>;

  /// What the recurrence over so many steps costs, forward and backward: what a rank waits for goes into its span.
  using StepsCost = std::function<std::pair<Cost, Cost>(std::int64_t steps)>;

  /// Runs `recurrence` over all sequences; the first dim of each input is B, undefined ones stay so. Where sp is 1 it is one
  /// call with `first`; elsewhere `first` has no tensors, and the states after the last token are not returned.
  Output run(OpContext& cx, std::vector<Tensor> inputs, std::vector<Tensor> first, const Recurrence& recurrence,
             const StepsCost& cost) const;

 private:
  static constexpr std::size_t most_states = 2;

  std::int64_t parts_of(std::int64_t batch) const;
  /// What the rank before hands on; `with` is on the tape. Backward hands the gradients back.
  std::vector<Tensor> receive(OpContext& cx, const Tensor& with, std::int64_t batch, const StepsCost& cost) const;
  /// The last states of `part` go to the next rank; backward waits for their gradients. → y.
  Tensor hand_on(OpContext& cx, const Output& part, std::int64_t batch, const StepsCost& cost) const;
  std::vector<Tensor> receive_from(ExecContext& exec, int rank, std::int64_t batch) const;
  void send_to(ExecContext& exec, int rank, const std::vector<Tensor>& states, std::int64_t batch) const;

  Communicator& group_;
  std::int64_t parts_, states_, width_;
};

}  // namespace weft
