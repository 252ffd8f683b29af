// One run of one case on one backend: buffers in that backend's memory, filled before and read after.
#pragma once
#include <memory>

#include "tests/unit/op_cases/op_case.hpp"

namespace weft::test {

/// A backend under test.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual ExecContext& exec() = 0;
  virtual void to_device(void* device, const void* host, std::size_t bytes) = 0;
  virtual void to_host(void* host, const void* device, std::size_t bytes) = 0;
};

/// Values rounded to what `stored` holds.
std::vector<double> rounded(std::vector<double> values, Stored stored, DType activation);

/// An input's values as stored.
std::vector<double> input_values(const OpCase& op, const Input& input, DType activation);

/// The cotangent of an output as stored (what is not differentiable has none: zeros).
std::vector<double> cotangent_values(const OpCase& op, const Output& output, DType activation);

/// What a gradient buffer that is added to holds before.
std::vector<double> gradient_base(const OpCase& op, const Input& input);

class Run {
 public:
  Run(Machine& machine, const OpCase& op, DType activation);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  ExecContext& exec() { return machine_.exec(); }
  const KernelTable& kernels() { return machine_.exec().kernels(); }
  DType activation() const { return activation_; }

  View in(const std::string& name) { return buffer("in:" + name); }
  MutView out(const std::string& name) { return buffer("out:" + name); }
  View cotangent(const std::string& name) { return buffer("cotangent:" + name); }
  MutView gradient(const std::string& name) { return buffer("gradient:" + name); }
  /// A buffer that lives from forward to backward, made at the first call.
  MutView saved(const std::string& name, Shape shape, DType dtype);
  /// The spec with the dropout key in this backend's memory.
  DropoutSpec with_key(DropoutSpec spec);
  /// A weight reference to an input, whose packed copies live as long as the run.
  WeightRef weight(const std::string& name, std::uint64_t version = 1);
  /// The input's buffer, replaced by `values` until `restore`.
  void replace(const std::string& name, const std::vector<double>& values);
  void restore(const std::string& name);

  /// What a buffer holds now.
  std::vector<double> read(View view);
  std::vector<char> read_bytes(View view);

 private:
  MutView buffer(const std::string& key);
  MutView make(const std::string& key, Shape shape, DType dtype);
  void write(const MutView& view, const std::vector<double>& values);

  Machine& machine_;
  const OpCase& op_;
  DType activation_;
  std::map<std::string, MutView> buffers_;
  std::vector<MutView> owned_;
  std::map<std::string, std::unique_ptr<PackedWeight>> packs_;
};

/// dtype of an operand.
DType dtype_for(Stored stored, DType activation);

}  // namespace weft::test
