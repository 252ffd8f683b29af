// This instruction set's kernels, as table.cpp collects them; kernels.hpp says what each does.
#pragma once
#include "core/cpu/vec/kernels.hpp"

namespace weft::cpu::WEFT_ISA {

void norm_forward(const NormForwardArgs& args, std::int64_t row_begin, std::int64_t row_end);
void norm_backward(const NormBackwardArgs& args, std::int64_t row_begin, std::int64_t row_end, float* dgain,
                   float* dbias);

void dropout(Elem elem, std::int64_t cols, const void* x, const DropoutArgs& args, void* y, std::int64_t row_begin,
             std::int64_t row_end);
void gelu(Elem elem, const void* x, void* y, std::int64_t begin, std::int64_t end);
void gelu_backward(Elem elem, const void* x, const void* dy, void* dx, std::int64_t begin, std::int64_t end);
void swiglu(Elem elem, std::int64_t cols, const void* gate_up, void* y, std::int64_t row_begin, std::int64_t row_end);
void swiglu_backward(Elem elem, std::int64_t cols, const void* gate_up, const void* dy, void* dgate_up,
                     std::int64_t row_begin, std::int64_t row_end);
void add(Elem elem, const void* a, const void* b, void* y, std::int64_t begin, std::int64_t end);
void scaled_add(Elem elem, const void* x, const void* a, float alpha, void* y, std::int64_t begin, std::int64_t end);
double scaled_add_backward(Elem elem, const void* a, float alpha, const void* dy, void* da, std::int64_t begin,
                           std::int64_t end);
void convert(Elem from, const void* x, Elem to, void* y, std::int64_t count);
void accumulate(Elem from, const void* x, float* y, std::int64_t count);
void fill(Elem elem, float value, void* y, std::int64_t begin, std::int64_t end);
void scale(Elem elem, float factor, void* y, std::int64_t begin, std::int64_t end);
double dot(const float* a, const float* b, std::int64_t begin, std::int64_t end);
void sum_rows(const float* parts, std::int64_t rows, std::int64_t stride, bool add_to, float* y, std::int64_t begin,
              std::int64_t end);

void channel_gates(const ChannelGateArgs& args, float* gate);
void channel_gate_slopes(const ChannelGateArgs& args, const float* dgate, float* da, float* db);
void scale_channels(Elem elem, std::int64_t cols, const void* x, const float* gate, void* y, std::int64_t row_begin,
                    std::int64_t row_end);
void scale_channels_backward(Elem elem, std::int64_t cols, const void* x, const float* gate, const void* dy, void* dx,
                             std::int64_t row_begin, std::int64_t row_end, float* dgate);
void boom(Elem elem, std::int64_t chunks, std::int64_t cols, const void* x, void* y, std::int64_t row_begin,
          std::int64_t row_end);
void boom_backward(Elem elem, std::int64_t chunks, std::int64_t cols, const void* x, const void* dy, void* dx,
                   std::int64_t row_begin, std::int64_t row_end);

void embedding_forward(const EmbeddingForwardArgs& args, std::int64_t row_begin, std::int64_t row_end);
void embedding_backward(const EmbeddingBackwardArgs& args, std::int64_t col_begin, std::int64_t col_end);
void rotary(const RotaryArgs& args, std::int64_t token_begin, std::int64_t token_end, float* turn);

std::size_t attention_forward_scratch(const AttentionArgs& args);
void attention_forward(const AttentionArgs& args, const AttentionTask& task);
std::size_t attention_backward_scratch(const AttentionArgs& args);
std::int64_t attention_dq_partial(const AttentionArgs& args);
void attention_backward(const AttentionArgs& args, const AttentionTask& task);
void attention_dq(const AttentionArgs& args, std::int64_t pair, const float* partials, std::int64_t parts,
                  float* dbias);
std::int64_t attention_dr_partial(const AttentionArgs& args);
void attention_dr(const AttentionArgs& args, std::int64_t head, const float* partials, std::int64_t stride,
                  std::int64_t count);
void attention_merge(const AttentionMergeArgs& args, std::int64_t row_begin, std::int64_t row_end);

void scan_forward(const ScanArgs& args, const ScanTask& task);
void scan_summary(const ScanArgs& args, const ScanTask& task);
void scan_backward(const ScanArgs& args, const ScanTask& task);
void scan_backward_summary(const ScanArgs& args, const ScanTask& task);

void adam(const AdamArgs& args, std::int64_t begin, std::int64_t end);
void sgd(const SgdArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace weft::cpu::WEFT_ISA
