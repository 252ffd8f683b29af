// Recurrences over all steps in one call: the recurrent weight stays near from step to step.
#include "core/cpu/recurrent_walk.hpp"

namespace weft::cpu {
namespace {

constexpr std::size_t line = 64;

StepShape whole(StepDirection direction, const RecurrentSizes& sizes, Elem elem) {
  return {direction, sizes.batch, sizes.hidden, sizes.hidden, sizes.gates, elem};
}

void run_forward(const RecurrentTables& tables, ExecContext& exec, const RecurrentForward& job) {
  const RecurrentSizes sizes = check_recurrent(job);
  if (sizes.batch == 0 || sizes.hidden == 0) return;
  const auto product =
      make_steps(tables, exec, whole(StepDirection::forward, sizes, elem_of(View(job.y))), sizes.steps);
  product->start(exec, job.weight, static_cast<char*>(exec.scratch(product->scratch_bytes())));
  run_parts(product->split(), sizes.steps, ForwardWalk(tables, sizes, *product, job));
}

void run_backward(const RecurrentTables& tables, ExecContext& exec, const RecurrentBackward& job) {
  const RecurrentSizes sizes = check_recurrent(job);
  if (sizes.batch == 0 || sizes.hidden == 0) return;
  const auto product = make_steps(tables, exec, whole(StepDirection::backward, sizes, elem_of(job.dy)), sizes.steps);
  const std::size_t carry_bytes =
      (static_cast<std::size_t>(sizes.batch * sizes.hidden) * sizeof(float) + line - 1) / line * line;
  auto* scratch = static_cast<char*>(exec.scratch(carry_bytes + product->scratch_bytes()));
  product->start(exec, job.weight, scratch + carry_bytes);
  run_parts(product->split(), sizes.steps,
            BackwardWalk(tables, sizes, *product, job, reinterpret_cast<float*>(scratch)));
}

template <const RecurrentCells& cells, const MatrixKernels& matrix>
void bind_kernels(RecurrentKernels& slots) {
  slots.forward.bind([](ExecContext& exec, RecurrentForward job) { run_forward({cells, matrix}, exec, job); });
  slots.backward.bind([](ExecContext& exec, RecurrentBackward job) { run_backward({cells, matrix}, exec, job); });
  slots.forward_step.bind([](ExecContext& exec, RecurrentForward job, std::int64_t step, View before) {
    run_forward_step({cells, matrix}, exec, job, step, before);
  });
  slots.backward_step.bind(
      [](ExecContext& exec, RecurrentBackward job, std::int64_t step, View dh, MutView carry, MutView dh_before) {
        run_backward_step({cells, matrix}, exec, job, step, dh, carry, dh_before);
      });
}

}  // namespace

std::unique_ptr<StepProduct> make_steps(const RecurrentTables& tables, ExecContext& exec, const StepShape& shape,
                                        std::int64_t steps) {
  auto* state = dynamic_cast<CpuState*>(exec.backend.get());
  if (shape.elem == Elem::bf16 && state && state->dnnl()) return state->dnnl()->steps(shape, steps, exec.threads());
  return make_tile_steps(tables.matrix, shape, steps, exec.threads());
}

void bind_recurrent(KernelTable& table, Isa isa) {
  switch (isa) {
    case Isa::portable: return bind_kernels<portable::recurrent_cells, portable::matrix_kernels>(table.recurrent);
    case Isa::v3: return bind_kernels<v3::recurrent_cells, v3::matrix_kernels>(table.recurrent);
    case Isa::v4: return bind_kernels<v4::recurrent_cells, v4::matrix_kernels>(table.recurrent);
  }
}

}  // namespace weft::cpu
