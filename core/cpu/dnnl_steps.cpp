// Step products by oneDNN, for processors with bf16 units. Each part multiplies by its own share of R, packed in the
// layout that oneDNN asks for, with a primitive made for one thread.
#include "core/cpu/dnnl_steps.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "core/cpu/dnnl_threads.hpp"

namespace weft::cpu {

namespace {

using dnnl::memory;
using Type = memory::data_type;
using Desc = memory::desc;

constexpr std::int64_t unit_align = 32;  // what a bf16 tile product takes at once

std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
Type type_of(Elem elem) { return elem == Elem::bf16 ? Type::bf16 : Type::f32; }

/// Shares of R in both directions, one a part of the units.
class DnnlStepWeight final : public PackedWeight {
 public:
  struct Copy {
    std::vector<Desc> layouts;
    std::vector<std::unique_ptr<StepBuffer>> shares;
    std::optional<std::uint64_t> version;
  };
  Copy& copy(StepDirection direction) { return copies_[direction == StepDirection::forward ? 0 : 1]; }

 private:
  std::array<Copy, 2> copies_;
};

class DnnlSteps final : public StepProduct {
 public:
  DnnlSteps(const StepShape& shape, std::int64_t steps, int threads)
      : StepProduct(shape, unit_align, steps, threads), depth_(shape.gates_in() * shape.units_in()) {
    const DnnlThreads one_thread(1);
    for (int part = 0; part < split_.parts(); ++part) parts_.push_back(make_part(part));
    for (int part = 0; part < split_.unit_parts; ++part)
      layouts_.push_back(parts_[static_cast<std::size_t>(part)].weight);
    for (Part& part : parts_) {
      part.operand_bytes = padded(part.left.get_size());
      part.sum_bytes = padded(part.sums.get_size() + 64);
    }
  }

  std::size_t scratch_bytes() const override {
    std::size_t bytes = 0;
    for (const Part& part : parts_) bytes += 2 * part.operand_bytes + part.sum_bytes + part.scratchpad_bytes;
    return bytes;
  }

  void start(ExecContext& exec, const WeightRef& weight, char* scratch) override {
    DnnlStepWeight::Copy& copy = weight.pack ? packed_in<DnnlStepWeight>(
                                                   weight, [](const DnnlStepWeight&) { return true; },
                                                   [] { return std::make_unique<DnnlStepWeight>(); })
                                                   .copy(shape_.direction)
                                             : own_;
    if (copy.layouts != layouts_) {
      copy = {layouts_, {}, std::nullopt};
      for (const Desc& layout : layouts_)
        copy.shares.push_back(std::make_unique<StepBuffer>(exec.memory(), padded(layout.get_size())));
    }
    if (copy.version != weight.version || !weight.pack) pack(exec, weight.value, copy);
    copy.version = weight.version;
    for (int p = 0; p < split_.parts(); ++p) {
      Part& part = parts_[static_cast<std::size_t>(p)];
      const auto take = [&scratch](std::size_t bytes) { return std::exchange(scratch, scratch + bytes); };
      // Parts of the same rows share one operand, the first one's.
      const Part& first = parts_[static_cast<std::size_t>(p / split_.unit_parts * split_.unit_parts)];
      for (int turn = 0; turn < 2; ++turn) {
        part.operands[turn] = p % split_.unit_parts == 0 ? take(part.operand_bytes) : first.operands[turn];
        if (p % split_.unit_parts == 0) std::memset(part.operands[turn], 0, part.operand_bytes);
      }
      part.out = reinterpret_cast<float*>(take(part.sum_bytes));
      char* scratchpad = take(part.scratchpad_bytes);
      const Desc bytes({static_cast<memory::dim>(part.scratchpad_bytes)}, Type::u8, {1});
      for (int turn = 0; turn < 2; ++turn) {
        auto& arguments = part.arguments[turn];
        arguments = {{DNNL_ARG_SRC, memory(part.left, engine_, part.operands[turn])},
                     {DNNL_ARG_WEIGHTS, memory(part.weight, engine_,
                                               copy.shares[static_cast<std::size_t>(p % split_.unit_parts)]->data())},
                     {DNNL_ARG_DST, memory(part.sums, engine_, part.out)}};
        if (part.scratchpad_bytes) arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(bytes, engine_, scratchpad));
      }
    }
  }

  std::int64_t piece_units() const override { return shape_.units_out(); }
  std::int64_t groups(int) const override { return 1; }
  Range group_rows(int part, std::int64_t) const override { return rows_of(part); }
  StepOperand operand(int part, std::int64_t, int turn) const override {
    return {parts_[static_cast<std::size_t>(part)].operands[turn], shape_.elem, depth_, 16, shape_.units_in()};
  }

  StepSums run(int part, Range units, int turn) override {
    Part& p = parts_[static_cast<std::size_t>(part)];
    p.product.execute(p.stream, p.arguments[turn]);
    return {p.out, shape_.gates_out() * units.size(), units.size()};
  }

 private:
  struct Part {
    Desc left, weight, sums;
    dnnl::matmul product;
    dnnl::stream stream;
    std::size_t operand_bytes = 0, sum_bytes = 0, scratchpad_bytes = 0;
    std::array<char*, 2> operands{};
    float* out = nullptr;
    std::array<std::unordered_map<int, memory>, 2> arguments;
  };

  Part make_part(int index) const {
    const std::int64_t rows = rows_of(index).size(), cols = shape_.gates_out() * units_of(index).size();
    const Type type = type_of(shape_.elem);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    // One layout for all numbers of rows, so that decoding and training share it.
    constexpr std::int64_t many = 256;
    const Desc any({depth_, cols}, type, memory::format_tag::any);
    const dnnl::matmul::primitive_desc preferred(
        {Desc({many, depth_}, type, {depth_, 1}), any, Desc({many, cols}, Type::f32, {cols, 1})}, attr, engine_);
    Part part;
    part.left = Desc({rows, depth_}, type, {depth_, 1});
    part.weight = preferred.weights_desc();
    part.sums = Desc({rows, cols}, Type::f32, {cols, 1});
    const dnnl::matmul::primitive_desc product({part.left, part.weight, part.sums}, attr, engine_);
    part.product = dnnl::matmul(product);
    part.scratchpad_bytes = padded(product.scratchpad_desc().get_size());
    part.stream = dnnl::stream(engine_);
    return part;
  }

  void pack(ExecContext& exec, const View& weight, const DnnlStepWeight::Copy& copy) {
    const DnnlThreads threads(exec.threads());
    const std::int64_t hidden = shape_.hidden, gates = shape_.gates_out();
    const auto* r = weight.as<float>();
    dnnl::stream stream(engine_);
    for (int p = 0; p < split_.unit_parts; ++p) {
      const Range units = units_of(p);
      const std::int64_t cols = gates * units.size();
      const auto row = static_cast<std::size_t>(hidden) * sizeof(float);
      const bool forward = shape_.direction == StepDirection::forward;
      const Desc from({depth_, cols}, Type::f32, forward ? memory::dims{1, hidden} : memory::dims{hidden, 1});
      const StepBuffer staged(exec.memory(), forward ? row * static_cast<std::size_t>(cols) : 1);
      for (std::int64_t gate = 0; forward && gate < gates; ++gate)
        std::memcpy(staged.data() + static_cast<std::size_t>(gate * units.size()) * row,
                    r + (gate * shape_.units + units.begin) * hidden, row * static_cast<std::size_t>(units.size()));
      const float* data = forward ? reinterpret_cast<const float*>(staged.data()) : r + units.begin;
      memory source(from, engine_, const_cast<float*>(data));
      memory target(layouts_[static_cast<std::size_t>(p)], engine_, copy.shares[static_cast<std::size_t>(p)]->data());
      dnnl::reorder(source, target).execute(stream, source, target);
      stream.wait();
    }
  }

  std::int64_t depth_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::vector<Part> parts_;
  std::vector<Desc> layouts_;
  DnnlStepWeight::Copy own_;  // where the weight has no place for a packed copy
};

}  // namespace

std::unique_ptr<StepProduct> make_dnnl_steps(const StepShape& shape, std::int64_t steps, int threads) {
  return std::make_unique<DnnlSteps>(shape, steps, threads);
}

}  // namespace weft::cpu
