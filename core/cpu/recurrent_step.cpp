// One step of a part of the units, between whose steps the ranks exchange what each has.
#include "core/cpu/recurrent_walk.hpp"

namespace weft::cpu {
namespace {

/// The step's operand comes from all units' states, then product and cells as in a pass over all steps.
class ForwardStep final : public ForwardWalk {
 public:
  ForwardStep(const RecurrentTables& tables, const RecurrentSizes& sizes, StepProduct& product,
              const RecurrentForward& job, std::int64_t step, const View& before)
      : ForwardWalk(tables, sizes, product, job), step_(step), before_(before) {}

  void begin(int part) const {
    if (step_ == 0) begin_carry(part);
    if (step_ == 0 && !job_.h_first) return;
    const Range units = product_.units_in_of(part);
    const std::int64_t all = before_.shape[2], row = sizes_.steps * all;
    for_groups(part, [&](std::int64_t group, Range rows) {
      cells_.operand(elem_, elem_, element(before_, rows.begin * row + step_ * all), row, rows.size(), units.begin,
                     units.end, product_.operand(part, group, static_cast<int>(step_ % 2)));
    });
  }
  void step(int part, std::int64_t) const { ForwardWalk::step(part, step_); }

 private:
  std::int64_t step_;
  View before_;
};

/// First the cells, then their product with R.
class BackwardStep final : public BackwardWalk {
 public:
  BackwardStep(const RecurrentTables& tables, const RecurrentSizes& sizes, StepProduct& product,
               const RecurrentBackward& job, std::int64_t step, const View& dh, const MutView& carry,
               const MutView& dh_before)
      : BackwardWalk(tables, sizes, product, job, floats(carry)), step_(step), dh_(dh), dh_before_(dh_before) {}

  void begin(int part) const {
    const Range rows = product_.rows_of(part), units = product_.units_in_of(part);
    if (step_ + 1 == sizes_.steps && carry_)
      copy_state(job_.cell == RecurrentCell::lstm ? job_.dc_last : View{}, carry_, sizes_.hidden, rows, units);
    StepSums sums;
    if (dh_) sums = {floats(dh_) + rows.begin * sizes_.hidden + units.begin, sizes_.hidden, 0};
    cells(part, step_, units, sums, 0);
  }
  void step(int part, std::int64_t) const {
    if (!dh_before_) return;
    const Range rows = product_.rows_of(part);
    for_pieces(part, 0, true, [&](Range piece, const StepSums& sums) {
      for (std::int64_t row = rows.begin; row < rows.end; ++row)
        std::copy_n(sums.data + (row - rows.begin) * sums.row_stride, piece.size(),
                    floats(dh_before_) + row * dh_before_.shape[1] + piece.begin);
    });
  }
  void end(int) const {}

 private:
  std::int64_t step_;
  View dh_;
  MutView dh_before_;
};

/// The product of one step alone, kept from call to call where there is a place for it.
class OneStep {
 public:
  OneStep(const RecurrentTables& tables, ExecContext& exec, const StepShape& shape, const WeightRef& weight) {
    const auto make = [&] { return make_steps(tables, exec, shape, 1); };
    auto* state = dynamic_cast<CpuState*>(exec.backend.get());
    if (!state) own_ = make();
    product_ = state ? &state->one_step(shape, exec.threads(), make) : own_.get();
    product_->start(exec, weight, static_cast<char*>(exec.scratch(product_->scratch_bytes())));
  }
  StepProduct& product() const { return *product_; }

 private:
  std::unique_ptr<StepProduct> own_;
  StepProduct* product_;
};

}  // namespace

void run_forward_step(const RecurrentTables& tables, ExecContext& exec, const RecurrentForward& job, std::int64_t step,
                      const View& before) {
  const RecurrentSizes s = check_recurrent_step(job, step, before);
  if (s.batch == 0 || s.hidden == 0) return;
  const OneStep one(tables, exec,
                    {StepDirection::forward, s.batch, s.hidden, before.shape[2], s.gates, elem_of(before)}, job.weight);
  run_parts(one.product().split(), 1, ForwardStep(tables, s, one.product(), job, step, before));
}

void run_backward_step(const RecurrentTables& tables, ExecContext& exec, const RecurrentBackward& job,
                       std::int64_t step, const View& dh, const MutView& carry, const MutView& dh_before) {
  const RecurrentSizes s = check_recurrent_step(job, step, dh, carry, dh_before);
  if (s.batch == 0 || s.hidden == 0) return;
  const OneStep one(tables, exec,
                    {StepDirection::backward, s.batch, s.hidden, job.weight.value.shape[1], s.gates, elem_of(job.dy)},
                    job.weight);
  run_parts(one.product().split(), 1, BackwardStep(tables, s, one.product(), job, step, dh, carry, dh_before));
}

}  // namespace weft::cpu
