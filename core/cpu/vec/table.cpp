#include "core/cpu/vec/functions.hpp"

namespace weft::cpu::WEFT_ISA {

constinit const VecKernels kernels = {
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .dropout = dropout,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .add = add,
    .scaled_add = scaled_add,
    .scaled_add_backward = scaled_add_backward,
    .convert = convert,
    .accumulate = accumulate,
    .fill = fill,
    .scale = scale,
    .dot = dot,
    .sum_rows = sum_rows,
    .embedding_forward = embedding_forward,
    .embedding_backward = embedding_backward,
    .rotary = rotary,
    .attention_forward_scratch = attention_forward_scratch,
    .attention_forward = attention_forward,
    .attention_backward_scratch = attention_backward_scratch,
    .attention_dq_partial = attention_dq_partial,
    .attention_backward = attention_backward,
    .attention_dq = attention_dq,
    .attention_dr_partial = attention_dr_partial,
    .attention_dr = attention_dr,
    .scan_forward = scan_forward,
    .scan_summary = scan_summary,
    .scan_backward = scan_backward,
    .scan_backward_summary = scan_backward_summary,
    .attention_merge = attention_merge,
    .adam = adam,
    .sgd = sgd,
};

}  // namespace weft::cpu::WEFT_ISA
