#include "core/cuda/cublaslt.hpp"

#include <bit>
#include <span>
#include <utility>

namespace weft::cuda {

namespace {

constexpr int most_proposals = 8;

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// The largest power of two, up to 256, that divides the address and the distance of rows in bytes.
std::uint32_t alignment_of(const void* data, std::int64_t row_bytes) {
  const auto bits = reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uintptr_t>(row_bytes) | 256u;
  return std::uint32_t{1} << std::countr_zero(bits);
}
std::uint32_t alignment_of(const ConstMatrix& matrix) { return alignment_of(matrix.data, matrix.row_bytes()); }

/// What cuBLASLt reads as C: without a C it still wants one, multiplied by 0.
ConstMatrix addend_of(const MatmulArgs& args) { return args.added ? args.added : ConstMatrix(args.out); }

/// cuBLASLt has one place for a bias and for its gradient.
const void* vector_of(const MatmulArgs& args) { return args.sums ? args.sums : args.bias; }

std::uint32_t epilogue_of(const MatmulArgs& args) {
  // The sums of op(A)'s rows; op(A) is cuBLASLt's B.
  if (args.sums) return CUBLASLT_EPILOGUE_BGRADB;
  if (args.gelu && args.pre) return args.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (args.gelu) return args.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  return args.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

}  // namespace

void CublasLt::check(cublasStatus_t status, const char* call) const {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    fail("{}: {} ({}, version {})", call, status_name(status), library.path(), version());
}

std::string CublasLt::description() const {
  return fmt::format("cuBLASLt {} ({})", version_text(version()), library.path());
}

ProductKey key_of(const MatmulArgs& args) {
  const auto [m, n, k] = shape_of(args);
  const ConstMatrix added = addend_of(args);
  std::int64_t flags = 0;
  const auto append = [&](int bits, std::int64_t value) { flags = (flags << bits) | value; };
  append(1, args.a.dtype == DType::bf16);
  append(1, args.out.dtype == DType::bf16);
  append(1, args.transpose_a);
  append(1, args.transpose_b);
  append(1, static_cast<bool>(args.added));
  append(1, args.added && !adds_in_place(args));
  append(10, epilogue_of(args));
  const auto append_alignment = [&](std::uint32_t alignment) { append(4, std::countr_zero(alignment)); };
  append_alignment(alignment_of(args.a));
  append_alignment(alignment_of(args.b));
  append_alignment(alignment_of(added));
  append_alignment(alignment_of(args.out));
  append_alignment(alignment_of(args.pre));
  append_alignment(alignment_of(vector_of(args), 0));
  return {{m, n, k, args.a.stride, args.b.stride, added.stride, args.out.stride, args.pre.stride, flags}};
}

std::size_t CublasLtState::KeyHash::operator()(const ProductKey& key) const {
  std::uint64_t hash = 0;
  for (const std::int64_t word : key) {
    hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  return hash;
}

CublasLtState::CublasLtState(CublasLtOptions options)
    : options_(std::move(options)), api_(Library("cuBLASLt", options_.names, options_.folders)) {
  cublasLtHandle_t handle = nullptr;
  api_.check(api_.create(&handle), "cublasLtCreate");
  handle_ = LibraryHandle(handle, api_.destroy);
  measured_.library = api_.version();
  if (!why_no_table().empty()) options_.table.choices.clear();
}

std::string CublasLtState::why_no_table() const {
  const ProductTable& table = options_.table;
  if (table.library == 0 || table.library == api_.version()) return {};
  return fmt::format("it was measured with cuBLASLt {}, and this is {}", version_text(table.library),
                     version_text(api_.version()));
}

std::string CublasLtState::rule() const {
  const std::size_t listed = options_.table.choices.size();
  return listed == 0 ? "cuBLASLt's first proposals" : fmt::format("a table of {} measured algorithms", listed);
}

template <class Value>
void CublasLtState::set(const Plan& plan, cublasLtMatmulDescAttributes_t attribute, Value value) const {
  api_.check(api_.set_product(plan.product.get(), attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}

void CublasLtState::set_pointers(const Plan& plan, const MatmulArgs& args) const {
  if (const void* vector = vector_of(args)) set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector);
  if (args.pre) set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, args.pre.data);
}

CublasLtState::Layout CublasLtState::layout(const ConstMatrix& matrix) const {
  cublasLtMatrixLayout_t made = nullptr;
  api_.check(api_.create_layout(&made, type_of(matrix.dtype), static_cast<std::uint64_t>(matrix.cols),
                                static_cast<std::uint64_t>(matrix.rows), matrix.stride),
             "cublasLtMatrixLayoutCreate");
  return Layout(made, api_.destroy_layout);
}

// Rows of ours are columns of cuBLASLt's, which computes outᵀ = op(B)ᵀ·op(A)ᵀ: a matrix as it lies in memory is its own
// transpose there, so the flags stay and the operands change places.
CublasLtState::Plan CublasLtState::make_plan(const ProductKey& key, const MatmulArgs& args) const {
  Plan plan;
  cublasLtMatmulDesc_t product = nullptr;
  api_.check(api_.create_product(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  plan.product = Product(product, api_.destroy_product);
  const auto operation = [](bool transposed) -> std::int32_t { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(plan, CUBLASLT_MATMUL_DESC_TRANSA, operation(args.transpose_b));
  set(plan, CUBLASLT_MATMUL_DESC_TRANSB, operation(args.transpose_a));
  set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(args));
  if (vector_of(args))
    set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(args.out.dtype)));
  if (args.pre) set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, args.pre.stride);
  set_pointers(plan, args);  // the choice of an algorithm looks at their alignment
  plan.a = layout(args.b);
  plan.b = layout(args.a);
  plan.c = layout(addend_of(args));
  plan.d = layout(args.out);
  choose_algorithm(plan, key, args);
  return plan;
}

void CublasLtState::choose_algorithm(Plan& plan, const ProductKey& key, const MatmulArgs& args) const {
  cublasLtMatmulPreference_t made = nullptr;
  api_.check(api_.create_preference(&made), "cublasLtMatmulPreferenceCreate");
  const Handle<cublasLtMatmulPreference_t, decltype(&cublasLtMatmulPreferenceDestroy)> preference(
      made, api_.destroy_preference);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    api_.check(api_.set_preference(preference.get(), attribute, &value, sizeof value),
               "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(cublaslt_workspace));
  // Partial sums of a product that is split along K stay in f32, and meet in a fixed order.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(args.b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(args.a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(addend_of(args)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(args.out));

  std::array<cublasLtMatmulHeuristicResult_t, most_proposals> proposals{};
  int count = 0;
  const cublasStatus_t status =
      api_.heuristic(handle_.get(), plan.product.get(), plan.a.get(), plan.b.get(), plan.c.get(), plan.d.get(),
                     preference.get(), most_proposals, proposals.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return;
  api_.check(status, "cublasLtMatmulAlgoGetHeuristic");

  const bool out_of_place = args.added && !adds_in_place(args);
  const auto usable = [&](const cublasLtMatmulHeuristicResult_t& one) {
    if (one.state != CUBLAS_STATUS_SUCCESS || one.workspaceSize > cublaslt_workspace) return false;
    std::int32_t able = 1;
    std::size_t written = 0;
    if (out_of_place)
      api_.check(
          api_.capability(&one.algo, CUBLASLT_ALGO_CAP_OUT_OF_PLACE_RESULT_SUPPORT, &able, sizeof able, &written),
          "cublasLtMatmulAlgoCapGetAttribute");
    return able != 0;
  };
  for (const auto& proposal : std::span(proposals).first(static_cast<std::size_t>(count)))
    if (usable(proposal)) plan.proposals.push_back(proposal.algo);
  const auto listed = options_.table.choices.find(key);
  const auto index = listed == options_.table.choices.end() ? 0 : static_cast<std::size_t>(listed->second.algorithm);
  if (index < plan.proposals.size()) plan.chosen = index;
}

CublasLtState::Plan& CublasLtState::plan(const MatmulArgs& args) {
  const ProductKey key = key_of(args);
  const auto found = plans_.find(key);
  return found != plans_.end() ? found->second : plans_.emplace(key, make_plan(key, args)).first->second;
}

bool CublasLtState::fuses(const MatmulArgs& args) {
  if (is_plain(args)) return true;
  return may_fuse(args) && (!args.sums || options_.fuse_sums) && !plan(args).proposals.empty();
}

void CublasLtState::run(const MatmulArgs& args, void* stream) {
  const auto [m, n, k] = shape_of(args);
  if (m == 0 || n == 0) return;
  Plan& way = plan(args);
  WEFT_CHECK(!way.proposals.empty(), "cuBLASLt {} has no algorithm for a product of {} [{}, {}] and [{}, {}] into {}",
             api_.version(), name_of(args.a.dtype), m, k, k, n, name_of(args.out.dtype));
  set_pointers(way, args);
  if (options_.time && !std::exchange(way.measured, true)) measure(way, args, stream);
  multiply(way, args, stream);
}

// What it adds to is added to again and again: the results of a run that measures are none.
void CublasLtState::measure(Plan& way, const MatmulArgs& args, void* stream) {
  ProductChoice choice;
  for (std::size_t index = 0; index < way.proposals.size(); ++index) {
    way.chosen = index;
    // The library may propose what it then does not take.
    if (index > 0 && try_multiply(way, args, stream) == CUBLAS_STATUS_NOT_SUPPORTED) continue;
    const double us = 1e6 * options_.time([&] { multiply(way, args, stream); }, stream);
    if (index == 0) choice.first_us = us;
    if (index > 0 && us >= choice.us) continue;
    choice.us = us;
    choice.algorithm = static_cast<int>(index);
  }
  way.chosen = static_cast<std::size_t>(choice.algorithm);
  measured_.choices.emplace(key_of(args), choice);
}

void CublasLtState::multiply(const Plan& way, const MatmulArgs& args, void* stream) const {
  api_.check(try_multiply(way, args, stream), "cublasLtMatmul");
}

cublasStatus_t CublasLtState::try_multiply(const Plan& way, const MatmulArgs& args, void* stream) const {
  const float alpha = 1, beta = args.added ? 1 : 0;
  return api_.matmul(handle_.get(), way.product.get(), &alpha, args.b.data, way.a.get(), args.a.data, way.b.get(),
                     &beta, addend_of(args).data, way.c.get(), args.out.data, way.d.get(), &way.proposals[way.chosen],
                     args.workspace, cublaslt_workspace, static_cast<cudaStream_t>(stream));
}

}  // namespace weft::cuda
