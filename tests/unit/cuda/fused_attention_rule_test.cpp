// Which attention calls go to cuDNN, and in what pieces.
#include <gtest/gtest.h>

#include "core/cuda/fused_attention_rule.hpp"

namespace weft::cuda {
namespace {

constexpr FusedDevice hopper{90, 91900};

AttentionCall gpt2() {
  AttentionCall call;
  call.batch = 16;
  call.q_len = call.k_len = 1024;
  call.heads = call.kv_heads = 12;
  call.head_dim = 64;
  call.mask = AttentionMask::causal;
  return call;
}

struct RuleCase {
  const char* name;
  void (*change)(AttentionCall& call, FusedDevice& device);
  bool forward, backward;
};

const RuleCase rule_cases[] = {
    {"gpt2", [](AttentionCall&, FusedDevice&) {}, true, true},
    {"f32", [](AttentionCall& c, FusedDevice&) { c.dtype = DType::f32; }, false, false},
    {"dropout", [](AttentionCall& c, FusedDevice&) { c.dropout = true; }, false, false},
    {"unaligned", [](AttentionCall& c, FusedDevice&) { c.aligned = false; }, false, false},
    {"another mask", [](AttentionCall& c, FusedDevice&) { c.mask = AttentionMask::other; }, false, false},
    {"no mask", [](AttentionCall& c, FusedDevice&) { c.mask = AttentionMask::none; }, true, true},
    {"more keys than queries", [](AttentionCall& c, FusedDevice&) { c.mask = AttentionMask::none, c.k_len = 4096; },
     true, true},
    {"grouped queries", [](AttentionCall& c, FusedDevice&) { c.kv_heads = 3; }, true, true},
    {"heads of 8", [](AttentionCall& c, FusedDevice&) { c.head_dim = 8; }, true, true},
    {"heads of 128", [](AttentionCall& c, FusedDevice&) { c.head_dim = 128; }, true, true},
    {"heads of 136", [](AttentionCall& c, FusedDevice&) { c.head_dim = 136; }, false, false},
    {"heads of 60", [](AttentionCall& c, FusedDevice&) { c.head_dim = 60; }, false, false},
    {"no sequence", [](AttentionCall& c, FusedDevice&) { c.batch = 0; }, false, false},
    {"no key", [](AttentionCall& c, FusedDevice&) { c.mask = AttentionMask::none, c.k_len = 0; }, false, false},
    {"one query", [](AttentionCall& c, FusedDevice&) { c.mask = AttentionMask::none, c.q_len = 1; }, false, false},
    {"63 queries", [](AttentionCall& c, FusedDevice&) { c.q_len = c.k_len = 63; }, false, false},
    {"64 queries", [](AttentionCall& c, FusedDevice&) { c.q_len = c.k_len = 64; }, true, true},
    {"an odd length", [](AttentionCall& c, FusedDevice&) { c.q_len = c.k_len = 1023; }, true, true},
    {"an odd length of odd heads in pieces",
     [](AttentionCall& c, FusedDevice&) { c.q_len = c.k_len = 1023, c.heads = c.kv_heads = 13, c.batch = 100; }, true,
     false},
    {"131072 tokens", [](AttentionCall& c, FusedDevice&) { c.q_len = c.k_len = 131072, c.batch = 1; }, true, false},
    {"Volta", [](AttentionCall&, FusedDevice& d) { d.capability = 70; }, false, false},
    {"Ampere", [](AttentionCall&, FusedDevice& d) { d.capability = 80; }, true, true},
    {"Blackwell", [](AttentionCall&, FusedDevice& d) { d.capability = 100; }, true, true},
    {"Blackwell before 9.18",
     [](AttentionCall&, FusedDevice& d) {
       d = {100, 91701};
     },
     true, false},
    {"a later Blackwell", [](AttentionCall&, FusedDevice& d) { d.capability = 107; }, true, false},
    {"consumer Blackwell", [](AttentionCall&, FusedDevice& d) { d.capability = 120; }, true, true},
    {"9.10.1", [](AttentionCall&, FusedDevice& d) { d.version = 91001; }, false, false},
    {"9.10.2", [](AttentionCall&, FusedDevice& d) { d.version = 91002; }, true, true},
    {"9.15 and a part of a tile", [](AttentionCall& c, FusedDevice& d) { d.version = 91500, c.q_len = c.k_len = 1000; },
     true, false},
    {"9.16 and a part of a tile", [](AttentionCall& c, FusedDevice& d) { d.version = 91600, c.q_len = c.k_len = 1000; },
     true, true},
};

TEST(FusedAttentionRule, TakesWhatCudnnComputesWithTheSameBitsEachTime) {
  for (const RuleCase& one : rule_cases) {
    AttentionCall call = gpt2();
    FusedDevice device = hopper;
    one.change(call, device);
    EXPECT_EQ(fuses_forward(call, device), one.forward) << one.name;
    EXPECT_EQ(fuses_backward(call, device), one.backward) << one.name;
  }
}

AttentionForward forward_call(std::int64_t q_len, std::int64_t k_len, AttentionSpec spec = {}) {
  const auto at = [](std::uintptr_t address) { return reinterpret_cast<void*>(address); };
  return {View(at(4096), {2, q_len, 4, 16}, DType::bf16),    View(at(8192), {2, k_len, 2, 16}, DType::bf16),
          View(at(8192), {2, k_len, 2, 16}, DType::bf16),    spec,
          MutView(at(4096), {2, q_len, 4, 16}, DType::bf16), MutView(at(4096), {2, 4, q_len}, DType::f32)};
}

AttentionMask mask_of_call(bool causal, std::int64_t q_begin, std::int64_t q_len, std::int64_t k_begin,
                           std::int64_t k_len) {
  AttentionSpec spec;
  spec.causal = causal;
  spec.q_begin = q_begin;
  spec.k_begin = k_begin;
  return describe(forward_call(q_len, k_len, spec)).mask;
}

TEST(FusedAttentionRule, SeesWhatACausalMaskHides) {
  EXPECT_EQ(mask_of_call(false, 0, 64, 512, 64), AttentionMask::none);
  EXPECT_EQ(mask_of_call(true, 0, 64, 0, 64), AttentionMask::causal);
  EXPECT_EQ(mask_of_call(true, 512, 64, 512, 64), AttentionMask::causal);
  EXPECT_EQ(mask_of_call(true, 512, 64, 0, 513), AttentionMask::none) << "the first query sees the last key";
  EXPECT_EQ(mask_of_call(true, 512, 64, 0, 514), AttentionMask::other);
  EXPECT_EQ(mask_of_call(true, 7, 1, 0, 8), AttentionMask::none) << "a token that is decoded";
  EXPECT_EQ(mask_of_call(true, 0, 64, 0, 65), AttentionMask::other);
  EXPECT_EQ(mask_of_call(true, 0, 64, 512, 64), AttentionMask::other) << "no query sees a key";
}

TEST(FusedAttentionRule, SeesAddressesAndStridesThatAreNotAligned) {
  EXPECT_TRUE(describe(forward_call(64, 64)).aligned);
  AttentionForward call = forward_call(64, 64);
  call.k.data = static_cast<const char*>(call.k.data) + 8;
  EXPECT_FALSE(describe(call).aligned);
  call = forward_call(64, 64);
  call.v.strides[1] += 4;
  EXPECT_FALSE(describe(call).aligned);
  call = forward_call(64, 64);
  call.lse.data = static_cast<char*>(call.lse.data) + 4;
  EXPECT_FALSE(describe(call).aligned);
  call.lse = {};
  EXPECT_TRUE(describe(call).aligned);
}

TEST(FusedAttentionRule, CutsABackwardIntoEvenPiecesThatFit) {
  AttentionCall call = gpt2();  // 24 MiB a sequence
  EXPECT_EQ(backward_piece(call), (AttentionPiece{16, 12}));
  EXPECT_EQ(backward_piece(call, std::int64_t{24} << 20), (AttentionPiece{1, 12}));
  EXPECT_EQ(backward_piece(call, std::int64_t{15 * 24} << 20), (AttentionPiece{8, 12}));
  EXPECT_EQ(backward_piece(call, (std::int64_t{24} << 20) - 1), (AttentionPiece{1, 6}));
  EXPECT_EQ(backward_piece(call, 1), (AttentionPiece{1, 1}));
  call.kv_heads = 3;  // 8 MiB a key-value head
  EXPECT_EQ(backward_piece(call, std::int64_t{20} << 20), (AttentionPiece{1, 2}));
  for (const std::int64_t batch : {1, 7, 16, 33})
    for (const std::int64_t megabytes : {1, 8, 30, 100, 1000}) {
      call.batch = batch;
      const AttentionPiece piece = backward_piece(call, megabytes << 20);
      EXPECT_TRUE(piece.batch >= 1 && piece.batch <= batch && piece.kv_heads >= 1 && piece.kv_heads <= 3);
      EXPECT_TRUE(piece.batch == 1 || piece.kv_heads == 3);
      EXPECT_LE(piece.batch * piece.kv_heads * score_bytes(call), std::max(megabytes << 20, score_bytes(call)));
    }
}

}  // namespace
}  // namespace weft::cuda
