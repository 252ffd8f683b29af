// The descriptors of the stand-in for cuDNN, and how it computes a graph of them.
#pragma once
#include <cudnn.h>

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

namespace weft::test::fake {

struct Node;
using Ref = std::shared_ptr<Node>;

struct Attribute {
  cudnnBackendAttributeType_t type;
  std::vector<char> bytes;
  std::vector<Ref> nodes;  // of descriptors, which outlive their handles here as they do there
};

struct Node {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<int, Attribute> attributes;

  bool has(int name) const { return attributes.contains(name); }
  template <class T>
  T get(int name, T otherwise = {}) const {
    const auto found = attributes.find(name);
    if (found != attributes.end()) std::memcpy(&otherwise, found->second.bytes.data(), sizeof(T));
    return otherwise;
  }
  template <class T>
  std::vector<T> list(int name) const {
    const std::vector<char>& bytes = attributes.at(name).bytes;
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  const Node& node(int name) const { return *attributes.at(name).nodes.at(0); }
};

using Dims = std::array<std::int64_t, 4>;

inline Dims dims_of(const Node& tensor, int name = CUDNN_ATTR_TENSOR_DIMENSIONS) { return tensor.get<Dims>(name); }
inline std::int64_t count_of(const Dims& dims) { return dims[0] * dims[1] * dims[2] * dims[3]; }

/// Computes operations one after another in f64, rounded where their tensors are.
class Machine {
 public:
  /// Addresses by tensor id.
  explicit Machine(std::map<std::int64_t, void*> memory) : memory_(std::move(memory)) {}

  void run(const Node& operation);

 private:
  using Values = std::vector<double>;

  Values read(const Node& tensor) const;
  void write(const Node& tensor, Values values);
  void matmul(const Node& op);
  void reduce(const Node& op);
  void reshape(const Node& op);
  void pointwise(const Node& op);

  std::map<std::int64_t, void*> memory_;
  std::map<std::int64_t, Values> virtual_;
};

}  // namespace weft::test::fake
