// cuBLASLt: its entry points, looked up when the program runs, and what is kept for each product that was asked for.
#pragma once
#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/cuda/handle.hpp"
#include "core/cuda/library.hpp"
#include "core/cuda/matmul.hpp"
#include "core/kernels/product_table.hpp"

namespace weft::cuda {

/// The functions that Weft calls.
struct CublasLt {
  explicit CublasLt(Library opened) : library(std::move(opened)) {}
  /// Throws Error that names the call and cuBLASLt's reason.
  void check(cublasStatus_t status, const char* call) const;
  /// Name, version and file.
  std::string description() const;

  template <class Function>
  using Entry = Function*;

  Library library;
#define WEFT_ENTRY(member, symbol) Entry<decltype(::symbol)> member = library.function<decltype(::symbol)>(#symbol)
  WEFT_ENTRY(create, cublasLtCreate);
  WEFT_ENTRY(destroy, cublasLtDestroy);
  WEFT_ENTRY(version, cublasLtGetVersion);
  WEFT_ENTRY(status_name, cublasLtGetStatusName);
  WEFT_ENTRY(matmul, cublasLtMatmul);
  WEFT_ENTRY(create_product, cublasLtMatmulDescCreate);
  WEFT_ENTRY(destroy_product, cublasLtMatmulDescDestroy);
  WEFT_ENTRY(set_product, cublasLtMatmulDescSetAttribute);
  WEFT_ENTRY(create_layout, cublasLtMatrixLayoutCreate);
  WEFT_ENTRY(destroy_layout, cublasLtMatrixLayoutDestroy);
  WEFT_ENTRY(create_preference, cublasLtMatmulPreferenceCreate);
  WEFT_ENTRY(destroy_preference, cublasLtMatmulPreferenceDestroy);
  WEFT_ENTRY(set_preference, cublasLtMatmulPreferenceSetAttribute);
  WEFT_ENTRY(heuristic, cublasLtMatmulAlgoGetHeuristic);
  WEFT_ENTRY(capability, cublasLtMatmulAlgoCapGetAttribute);
#undef WEFT_ENTRY
};

/// Bytes of workspace: what cuBLAS recommends for Hopper. The choice of algorithms depends on it.
inline constexpr std::size_t cublaslt_workspace = std::size_t{32} << 20;

ProductKey key_of(const MatmulArgs& args);

struct CublasLtOptions {
  /// The library's file names, the best first, and where to look for them after the dynamic loader's own places.
  std::vector<std::string_view> names = {"libcublasLt.so.13", "libcublasLt.so.12"};
  std::vector<std::filesystem::path> folders = library_folders();
  /// Whether column sums of dy come with the weight's gradient. A product that takes them along can be the slower one.
  bool fuse_sums = false;
  /// Which of cuBLASLt's proposals to take, where it was measured with this library; those not listed take the first.
  ProductTable table{};
  /// Seconds of one run of a product on `stream`, when products are to be measured: each takes the fastest proposal from
  /// its first run on.
  std::function<double(const std::function<void()>& run, void* stream)> time{};
};

/// What is kept for the matrix products, for the device that is current when it is made.
class CublasLtState {
 public:
  /// Throws Error if the library is missing or the device cannot be used.
  explicit CublasLtState(CublasLtOptions options);

  bool fuses(const MatmulArgs& args);
  void run(const MatmulArgs& args, void* stream);
  const CublasLt& library() const { return api_; }
  /// Why the table is not used; empty if it is, or if there is none.
  std::string why_no_table() const;
  /// The rule that algorithms go by, for people.
  std::string rule() const;
  /// What was measured so far; without the device's name.
  const ProductTable& measured() const { return measured_; }

 private:
  using LibraryHandle = Handle<cublasLtHandle_t, decltype(&cublasLtDestroy)>;
  using Product = Handle<cublasLtMatmulDesc_t, decltype(&cublasLtMatmulDescDestroy)>;
  using Layout = Handle<cublasLtMatrixLayout_t, decltype(&cublasLtMatrixLayoutDestroy)>;

  /// A product's descriptors, in cuBLASLt's column-major order: `a` is MatmulArgs::b and `b` is MatmulArgs::a.
  struct Plan {
    Product product;
    Layout a, b, c, d;
    std::vector<cublasLtMatmulAlgo_t> proposals;  ///< those that can be used; empty: not supported
    std::size_t chosen = 0;
    bool measured = false;
  };
  struct KeyHash {
    std::size_t operator()(const ProductKey& key) const;
  };

  Plan& plan(const MatmulArgs& args);
  Plan make_plan(const ProductKey& key, const MatmulArgs& args) const;
  void choose_algorithm(Plan& plan, const ProductKey& key, const MatmulArgs& args) const;
  Layout layout(const ConstMatrix& matrix) const;
  void set_pointers(const Plan& plan, const MatmulArgs& args) const;
  void multiply(const Plan& plan, const MatmulArgs& args, void* stream) const;
  cublasStatus_t try_multiply(const Plan& plan, const MatmulArgs& args, void* stream) const;
  void measure(Plan& plan, const MatmulArgs& args, void* stream);
  template <class Value>
  void set(const Plan& plan, cublasLtMatmulDescAttributes_t attribute, Value value) const;

  CublasLtOptions options_;
  CublasLt api_;
  LibraryHandle handle_;
  std::unordered_map<ProductKey, Plan, KeyHash> plans_;
  ProductTable measured_;
};

}  // namespace weft::cuda
