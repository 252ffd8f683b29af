// Stands in for cuBLASLt where there is no GPU: the functions that Weft calls, over host memory, in plain loops, strict
// about what the real ones document.
#include "tests/unit/cuda/fake_cublaslt.hpp"

#include <cublasLt.h>

#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "core/base/dtype.hpp"

namespace {

using weft::bf16;
using weft::test::FakeCublasLt;

FakeCublasLt state;

struct Values {
  std::map<int, std::vector<char>> values;

  cublasStatus_t set(int attribute, const void* data, std::size_t bytes, std::size_t expected) {
    if (bytes != expected) return CUBLAS_STATUS_INVALID_VALUE;
    const auto* from = static_cast<const char*>(data);
    values[attribute].assign(from, from + bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  template <class T>
  T get(int attribute, T otherwise) const {
    const auto found = values.find(attribute);
    if (found != values.end()) std::memcpy(&otherwise, found->second.data(), sizeof(T));
    return otherwise;
  }
};

struct Layout {
  cudaDataType_t type;
  std::int64_t rows, cols, ld;
};

const Layout& of(cublasLtMatrixLayout_t layout) { return *reinterpret_cast<const Layout*>(layout); }
Values& of(cublasLtMatmulDesc_t product) { return *reinterpret_cast<Values*>(product); }
Values& of(cublasLtMatmulPreference_t preference) { return *reinterpret_cast<Values*>(preference); }

/// Column-major elements of either type.
struct Elements {
  void* data;
  cudaDataType_t type;
  std::int64_t ld;
  bool transposed = false;

  double get(std::int64_t row, std::int64_t col) const {
    const std::int64_t i = transposed ? col + row * ld : row + col * ld;
    return type == CUDA_R_16BF ? static_cast<double>(static_cast<float>(static_cast<bf16*>(data)[i]))
                               : static_cast<double>(static_cast<float*>(data)[i]);
  }
  void put(std::int64_t row, std::int64_t col, double value) const {
    const std::int64_t i = row + col * ld;
    if (type == CUDA_R_16BF)
      static_cast<bf16*>(data)[i] = bf16(static_cast<float>(value));
    else
      static_cast<float*>(data)[i] = static_cast<float>(value);
  }
};

Elements elements(const void* data, const Layout& layout, bool transposed = false) {
  return {const_cast<void*>(data), layout.type, layout.ld, transposed};
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

/// What an algorithm promises, as Weft hands it back.
struct Algorithm {
  std::uint64_t index;
  std::array<std::uint32_t, 4> alignment;  // of A, B, C, D
};

bool aligned(const void* data, const Layout& layout, std::uint32_t alignment) {
  const std::int64_t bytes = layout.ld * (layout.type == CUDA_R_16BF ? 2 : 4);
  return reinterpret_cast<std::uintptr_t>(data) % alignment == 0 && bytes % alignment == 0;
}

bool aligned(const void* data, std::uintptr_t alignment) {
  return reinterpret_cast<std::uintptr_t>(data) % alignment == 0;
}

template <class Object>
cublasStatus_t make(Object** made) {
  *made = reinterpret_cast<Object*>(new Values);
  ++state.live;
  return CUBLAS_STATUS_SUCCESS;
}

template <class Object>
cublasStatus_t end(Object* object) {
  delete reinterpret_cast<Values*>(object);
  --state.live;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

FakeCublasLt* fake_cublaslt() { return &state; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (state.no_device) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cublasLtHandle_t>(new Values);
  ++state.live;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return end(handle); }
std::size_t cublasLtGetVersion() { return 130000; }
const char* cublasLtGetStatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_INITIALIZED ? "CUBLAS_STATUS_NOT_INITIALIZED" : "CUBLAS_STATUS";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return make(made);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) { return end(product); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void* data, std::size_t bytes) {
  const bool wide = attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ||
                    attribute == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER ||
                    attribute == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD;
  return of(product).set(attribute, data, bytes, wide ? 8 : 4);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t cols, std::int64_t ld) {
  if (rows == 0 || cols == 0 || ld < static_cast<std::int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols), ld});
  ++state.live;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  --state.live;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) { return make(made); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return end(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* data,
                                                    std::size_t bytes) {
  return of(preference).set(attribute, data, bytes, attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8 : 4);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int wanted, cublasLtMatmulHeuristicResult_t results[], int* count) {
  ++state.heuristics;
  *count = 0;
  const auto epilogue = of(product).get<std::uint32_t>(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
  if (state.refuse_all || (state.refuse_epilogues && epilogue != CUBLASLT_EPILOGUE_DEFAULT))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (of(a).type != of(b).type || of(c).type != of(d).type || of(c).rows != of(d).rows || of(c).cols != of(d).cols)
    return CUBLAS_STATUS_INVALID_VALUE;
  Algorithm algorithm{};
  for (int i = 0; i < 4; ++i)
    algorithm.alignment[static_cast<std::size_t>(i)] =
        of(preference).get<std::uint32_t>(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i, 256);
  for (int i = 0; i < std::min(wanted, 3); ++i) {
    algorithm.index = static_cast<std::uint64_t>(i);
    results[i].state = CUBLAS_STATUS_SUCCESS;
    results[i].workspaceSize = of(preference).get<std::uint64_t>(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 0);
    std::memcpy(&results[i].algo, &algorithm, sizeof algorithm);
    *count = i + 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCapGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                 cublasLtMatmulAlgoCapAttributes_t attribute, void* data,
                                                 std::size_t bytes, std::size_t* written) {
  if (attribute != CUBLASLT_ALGO_CAP_OUT_OF_PLACE_RESULT_SUPPORT || bytes != sizeof(std::int32_t))
    return CUBLAS_STATUS_INVALID_VALUE;
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof algorithm);
  const std::int32_t able = algorithm.index > 0;  // the first proposal is not
  std::memcpy(data, &able, sizeof able);
  *written = sizeof able;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha, const void* a_data,
                              cublasLtMatrixLayout_t a_layout, const void* b_data, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c_data, cublasLtMatrixLayout_t c_layout, void* d_data,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t) {
  ++state.products;
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof algorithm);
  if (static_cast<int>(algorithm.index) == state.refused_algorithm) return CUBLAS_STATUS_NOT_SUPPORTED;
  state.last_algorithm = static_cast<int>(algorithm.index);
  const bool transpose_a = of(product).get<std::int32_t>(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_N) == CUBLAS_OP_T;
  const bool transpose_b = of(product).get<std::int32_t>(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N) == CUBLAS_OP_T;
  const auto epilogue = of(product).get<std::uint32_t>(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
  const auto pointer = [&](int attribute) { return of(product).get<void*>(attribute, nullptr); };
  const Layout &al = of(a_layout), &bl = of(b_layout), &dl = of(d_layout);
  const std::int64_t m = dl.rows, n = dl.cols, k = transpose_a ? al.rows : al.cols;
  if ((transpose_a ? al.cols : al.rows) != m || (transpose_b ? bl.rows : bl.cols) != n ||
      (transpose_b ? bl.cols : bl.rows) != k)
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto& promised = algorithm.alignment;
  if (!aligned(a_data, al, promised[0]) || !aligned(b_data, bl, promised[1]) ||
      !aligned(c_data, of(c_layout), promised[2]) || !aligned(d_data, dl, promised[3]))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!workspace || workspace_bytes < (std::size_t{32} << 20)) return CUBLAS_STATUS_INVALID_VALUE;

  const bool bias = epilogue & CUBLASLT_EPILOGUE_BIAS, with_gelu = epilogue & CUBLASLT_EPILOGUE_GELU;
  const bool aux = (epilogue & 128) != 0, sums = epilogue == CUBLASLT_EPILOGUE_BGRADB;
  const Elements vector{pointer(CUBLASLT_MATMUL_DESC_BIAS_POINTER), dl.type, m};
  const auto aux_ld = of(product).get<std::int64_t>(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 0);
  const Elements before{pointer(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER), dl.type, aux_ld};
  if ((bias || sums) && (!vector.data || !aligned(vector.data, 16))) return CUBLAS_STATUS_INVALID_VALUE;
  if (aux && (!before.data || !aligned(before.data, 16) || aux_ld % 8 != 0 || aux_ld < m))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Elements a = elements(a_data, al, transpose_a), b = elements(b_data, bl, transpose_b);
  const Elements c = elements(c_data, of(c_layout)), d = elements(d_data, dl);
  const auto factor = static_cast<double>(*static_cast<const float*>(alpha));
  const auto kept = static_cast<double>(*static_cast<const float*>(beta));
  for (std::int64_t j = 0; j < n; ++j) {
    double sum_of_b = 0;
    for (std::int64_t l = 0; l < k; ++l) sum_of_b += b.get(l, j);
    if (sums) vector.put(j, 0, sum_of_b);
    for (std::int64_t i = 0; i < m; ++i) {
      double total = 0;
      for (std::int64_t l = 0; l < k; ++l) total += a.get(i, l) * b.get(l, j);
      total *= factor;
      if (kept != 0) total += kept * c.get(i, j);
      if (bias) total += vector.get(i, 0);
      if (aux) before.put(i, j, total);
      d.put(i, j, with_gelu ? gelu(total) : total);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
