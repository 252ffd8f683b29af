#include "core/cpu/dnnl_products.hpp"

#include <dnnl.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>

#include "core/cpu/backend.hpp"
#include "core/cpu/dnnl_steps.hpp"
#include "core/cpu/dnnl_threads.hpp"

namespace weft::cpu {

namespace {

using dnnl::memory;
using Type = memory::data_type;
using Desc = memory::desc;
using Arguments = std::unordered_map<int, memory>;

Type type_of(Elem elem) { return elem == Elem::bf16 ? Type::bf16 : Type::f32; }
std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
void* mutable_data(const void* p) { return const_cast<void*>(p); }

/// One packed copy of a weight.
struct Copy {
  void* data = nullptr;
  std::size_t bytes = 0;
  std::uint64_t version = 0;
};

class DnnlWeight final : public PackedWeight {
 public:
  explicit DnnlWeight(Allocator& memory) : memory_(memory) {}
  ~DnnlWeight() override {
    for (const Copy& copy : copies_)
      if (copy.data) memory_.deallocate(copy.data, copy.bytes, MemoryUse::parameter);
  }
  /// The copy for one direction with room for `bytes`; its version is 0 if it was just made.
  Copy& copy(Orientation orientation, std::size_t bytes) {
    Copy& one = copies_[orientation == Orientation::straight ? 0 : 1];
    if (one.bytes != bytes) {
      if (one.data) memory_.deallocate(one.data, one.bytes, MemoryUse::parameter);
      one = {};
      one.data = memory_.allocate(bytes, MemoryUse::parameter);
      one.bytes = bytes;
    }
    return one;
  }

 private:
  Allocator& memory_;
  std::array<Copy, 2> copies_{};
};

/// How the residual comes in: as a tensor of its own or as what the output holds.
enum class ResidualKind : std::int64_t { none, other, output };

ResidualKind residual_kind(const ProductOutput& output) {
  if (!output.residual) return ResidualKind::none;
  return output.residual == output.out ? ResidualKind::output : ResidualKind::other;
}

bool is_weight_gradient(const Product& product) { return product.a.layout == TileLayout::by_col; }

/// Primitives and memory layouts of one shape.
struct Plan {
  Desc a, b, out, residual, bias, packed;
  dnnl::primitive product;
  dnnl::primitive after;    ///< GELU from pre, or the sum into a weight gradient
  dnnl::primitive packing;  ///< the weight's f32 master to `packed`
  Desc master;
  std::size_t scratchpad = 0;  ///< the largest of the three
};

/// Made once a shape.
struct Primitives {
  using Key = std::array<std::int64_t, 14>;
  // Decoding and odd last batches bring new shapes; beyond this many all are made again.
  static constexpr std::size_t most_plans = 256;

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, Plan> plans;

  static dnnl::primitive_attr attributes() {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attr;
  }

  template <class PrimitiveDesc>
  static void note_scratchpad(Plan& plan, const PrimitiveDesc& desc) {
    plan.scratchpad = std::max(plan.scratchpad, padded(desc.scratchpad_desc().get_size()));
  }

  Plan& plan_of(const Product& p, int threads) {
    const Key key = {p.shape.m,
                     p.shape.n,
                     p.shape.k,
                     p.a.stride,
                     static_cast<std::int64_t>(p.a.layout),
                     p.b.stride,
                     static_cast<std::int64_t>(p.b.orientation) * 2 + (p.weight ? 1 : 0),
                     p.output.stride,
                     static_cast<std::int64_t>(p.output.elem),
                     (p.output.bias || p.a.column_sums ? 1 : 0) + (p.output.gelu ? 2 : 0) + (p.output.pre ? 4 : 0),
                     p.output.pre_stride,
                     static_cast<std::int64_t>(residual_kind(p.output)),
                     p.output.residual_stride,
                     threads};
    if (const auto found = plans.find(key); found != plans.end()) return found->second;
    if (plans.size() >= most_plans) plans.clear();
    return plans.emplace(key, is_weight_gradient(p) ? weight_gradient_plan(p) : product_plan(p)).first->second;
  }

  /// The layout that oneDNN prefers for this weight with many rows; all numbers of rows share it.
  Desc preferred(const Product& p) const {
    const Desc a({256, p.shape.k}, Type::bf16, {p.shape.k, 1}), out({256, p.shape.n}, Type::bf16, {p.shape.n, 1});
    const Desc b({p.shape.k, p.shape.n}, Type::bf16, memory::format_tag::any);
    return dnnl::matmul::primitive_desc({a, b, out}, attributes(), engine).weights_desc();
  }

  Plan product_plan(const Product& p) const {
    const auto& [m, n, k] = p.shape;
    Plan plan;
    plan.a = Desc({m, k}, Type::bf16, {p.a.stride, 1});
    plan.out = Desc({m, n}, type_of(p.output.elem), {p.output.stride, 1});
    const memory::dims b_strides =
        p.b.orientation == Orientation::straight ? memory::dims{p.b.stride, 1} : memory::dims{1, p.b.stride};
    plan.b = Desc({k, n}, Type::bf16, b_strides);
    if (p.weight) {
      plan.master = Desc({k, n}, Type::f32, b_strides);
      plan.b = plan.packed = preferred(p);
      const dnnl::reorder::primitive_desc packing(engine, plan.master, engine, plan.packed, attributes());
      note_scratchpad(plan, packing);
      plan.packing = dnnl::reorder(packing);
    }
    const bool after_pre = p.output.gelu && p.output.pre;
    auto attr = attributes();
    dnnl::post_ops ops;
    if (p.output.gelu && !after_pre) ops.append_eltwise(1, dnnl::algorithm::eltwise_gelu_tanh, 0, 0);
    if (residual_kind(p.output) == ResidualKind::output) ops.append_sum(1);
    if (residual_kind(p.output) == ResidualKind::other) {
      plan.residual = Desc({m, n}, type_of(p.output.elem), {p.output.residual_stride, 1});
      ops.append_binary(dnnl::algorithm::binary_add, plan.residual);
    }
    attr.set_post_ops(ops);
    Desc target = plan.out;
    if (after_pre) target = Desc({m, n}, type_of(p.output.elem), {p.output.pre_stride, 1});
    plan.bias = Desc({1, n}, Type::f32, {n, 1});
    const dnnl::matmul::primitive_desc product(p.output.bias ? dnnl::matmul::desc(plan.a, plan.b, plan.bias, target)
                                                             : dnnl::matmul::desc(plan.a, plan.b, target),
                                               attr, engine);
    note_scratchpad(plan, product);
    plan.product = dnnl::matmul(product);
    if (after_pre) {
      // An elementwise primitive wants one layout for both; these differ in their gaps at most, and are dense here.
      const dnnl::eltwise_forward::primitive_desc gelu(
          {dnnl::prop_kind::forward_inference, dnnl::algorithm::eltwise_gelu_tanh, target, 0, 0}, attributes(), engine);
      note_scratchpad(plan, gelu);
      plan.after = dnnl::eltwise_forward(gelu);
    }
    return plan;
  }

  Plan weight_gradient_plan(const Product& p) const {
    const auto& [n, k, m] = p.shape;
    Plan plan;
    plan.a = Desc({m, n}, Type::bf16, {n, 1});
    plan.b = Desc({m, k}, Type::bf16, {k, 1});
    plan.out = Desc({n, k}, Type::f32, {k, 1});
    plan.bias = Desc({n}, Type::f32, {1});
    const bool sums = p.a.column_sums != nullptr;
    using dnnl::inner_product_backward_weights;
    using dnnl::inner_product_forward;
    const auto kind = dnnl::prop_kind::forward_training;
    const Desc weight({n, k}, Type::bf16, memory::format_tag::any);
    const inner_product_forward::primitive_desc hint(inner_product_forward::desc(kind, plan.b, weight, plan.a), engine);
    const inner_product_backward_weights::primitive_desc product(
        sums ? inner_product_backward_weights::desc(plan.b, plan.out, plan.bias, plan.a)
             : inner_product_backward_weights::desc(plan.b, plan.out, plan.a),
        attributes(), engine, hint);
    note_scratchpad(plan, product);
    plan.product = inner_product_backward_weights(product);
    if (residual_kind(p.output) == ResidualKind::output) {
      const dnnl::binary::primitive_desc sum({dnnl::algorithm::binary_add, plan.out, plan.out, plan.out}, attributes(),
                                             engine);
      note_scratchpad(plan, sum);
      plan.after = dnnl::binary(sum);
    }
    return plan;
  }

  memory wrap(const Desc& desc, const void* data) const { return {desc, engine, mutable_data(data)}; }

  void execute(const dnnl::primitive& primitive, Arguments arguments, const Plan& plan, void* scratchpad) {
    const Desc bytes({static_cast<memory::dim>(plan.scratchpad)}, Type::u8, {1});
    if (plan.scratchpad) arguments.emplace(DNNL_ARG_SCRATCHPAD, wrap(bytes, scratchpad));
    primitive.execute(stream, arguments);
    stream.wait();
  }

  /// The packed weight: from the cache, or packed into `room` where there is none.
  const void* packed_weight(ExecContext& exec, const Product& p, const Plan& plan, char* room, void* scratchpad) {
    const WeightRef& weight = *p.weight;
    void* data = room;
    if (weight.pack) {
      auto* pack = dynamic_cast<DnnlWeight*>(weight.pack->get());
      if (!pack) {
        *weight.pack = std::make_unique<DnnlWeight>(exec.memory());
        pack = static_cast<DnnlWeight*>(weight.pack->get());
      }
      Copy& copy = pack->copy(p.b.orientation, padded(plan.packed.get_size()));
      if (copy.version == weight.version + 1) return copy.data;
      copy.version = weight.version + 1;
      data = copy.data;
    }
    execute(plan.packing, {{DNNL_ARG_FROM, wrap(plan.master, p.b.data)}, {DNNL_ARG_TO, wrap(plan.packed, data)}}, plan,
            scratchpad);
    return data;
  }
};

class ByDnnl final : public DnnlProducts {
 public:
  bool takes(const Product& product) const override;
  std::size_t scratch(const Product& product, int threads) override;
  void run(ExecContext& exec, const Product& product, void* scratch) override;
  void narrow(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, void* to,
              int threads) override;
  std::unique_ptr<StepProduct> steps(const StepShape& shape, std::int64_t steps, int threads) const override {
    return make_dnnl_steps(shape, steps, threads);
  }

 private:
  Primitives primitives_;
};

bool ByDnnl::takes(const Product& p) const {
  if (p.a.elem != Elem::bf16) return false;
  if (is_weight_gradient(p))
    return p.b.elem == Elem::bf16 && p.a.stride == p.shape.m && p.b.stride == p.shape.n && p.output.stride == p.shape.n;
  const bool dense_gelu = !p.output.pre || (p.output.stride == p.shape.n && p.output.pre_stride == p.shape.n);
  return p.weight != nullptr && dense_gelu;
}

std::size_t ByDnnl::scratch(const Product& p, int threads) {
  const DnnlThreads count(threads);
  const Plan& plan = primitives_.plan_of(p, threads);
  std::size_t room = 0;
  if (p.weight && !p.weight->pack) room += padded(plan.packed.get_size());
  if (is_weight_gradient(p)) {
    if (p.output.residual) room += padded(plan.out.get_size());
    if (p.a.column_sums) room += padded(plan.bias.get_size());
  }
  return room + plan.scratchpad;
}

void ByDnnl::run(ExecContext& exec, const Product& p, void* scratch) {
  const DnnlThreads count(exec.threads());
  const Plan& plan = primitives_.plan_of(p, exec.threads());
  char* room = static_cast<char*>(scratch);
  const auto take = [&room](std::size_t bytes) {
    char* taken = room;
    room += padded(bytes);
    return taken;
  };
  Arguments arguments;
  if (is_weight_gradient(p)) {
    void* out = p.output.residual ? take(plan.out.get_size()) : p.output.out;
    auto* sums = reinterpret_cast<float*>(p.a.column_sums ? take(plan.bias.get_size()) : nullptr);
    arguments = {{DNNL_ARG_SRC, primitives_.wrap(plan.b, p.b.data)},
                 {DNNL_ARG_DIFF_DST, primitives_.wrap(plan.a, p.a.data)},
                 {DNNL_ARG_DIFF_WEIGHTS, primitives_.wrap(plan.out, out)}};
    if (sums) arguments.emplace(DNNL_ARG_DIFF_BIAS, primitives_.wrap(plan.bias, sums));
    primitives_.execute(plan.product, arguments, plan, room);
    for (std::int64_t i = 0; sums && i < p.shape.m; ++i) p.a.column_sums[i] += sums[i];
    if (p.output.residual) {
      const memory total = primitives_.wrap(plan.out, p.output.out);
      primitives_.execute(
          plan.after,
          {{DNNL_ARG_SRC_0, total}, {DNNL_ARG_SRC_1, primitives_.wrap(plan.out, out)}, {DNNL_ARG_DST, total}}, plan,
          room);
    }
    return;
  }
  char* weight_room = p.weight->pack ? nullptr : take(plan.packed.get_size());
  const void* weight = primitives_.packed_weight(exec, p, plan, weight_room, room);
  const bool after_pre = p.output.gelu && p.output.pre;
  const memory target = primitives_.wrap(plan.out, after_pre ? p.output.pre : p.output.out);
  arguments = {{DNNL_ARG_SRC, primitives_.wrap(plan.a, p.a.data)},
               {DNNL_ARG_WEIGHTS, primitives_.wrap(plan.b, weight)},
               {DNNL_ARG_DST, target}};
  if (p.output.bias) arguments.emplace(DNNL_ARG_BIAS, primitives_.wrap(plan.bias, p.output.bias));
  if (residual_kind(p.output) == ResidualKind::other)
    arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(p.output.gelu && !after_pre ? 1 : 0) | DNNL_ARG_SRC_1,
                      primitives_.wrap(plan.residual, p.output.residual));
  primitives_.execute(plan.product, arguments, plan, room);
  if (after_pre)
    primitives_.execute(plan.after, {{DNNL_ARG_SRC, target}, {DNNL_ARG_DST, primitives_.wrap(plan.out, p.output.out)}},
                        plan, room);
}

void ByDnnl::narrow(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, void* to,
                    int threads) {
  const DnnlThreads count(threads);
  memory source = primitives_.wrap(Desc({rows, cols}, Type::f32, {stride, 1}), from);
  memory target = primitives_.wrap(Desc({rows, cols}, Type::bf16, {cols, 1}), to);
  dnnl::reorder(source, target).execute(primitives_.stream, source, target);
  primitives_.stream.wait();
}

}  // namespace

std::unique_ptr<DnnlProducts> make_dnnl_products() { return std::make_unique<ByDnnl>(); }

bool prefers_dnnl() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [isa](dnnl::cpu_isa wanted) {
    return (isa & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted);
  };
  const bool tiles = has(dnnl::cpu_isa::avx512_core_amx);
  const bool fast_dot = has(dnnl::cpu_isa::avx512_core_bf16) && __builtin_cpu_is("amd");
  return tiles || fast_dot;
}

std::string dnnl_library() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace weft::cpu
