// What a model is built from: where its parameters go and how they are sharded. Passed by reference; no singleton.
#pragma once
#include "core/nn/parameter_store.hpp"

namespace weft {

class Mesh;

struct BuildContext {
  Builder build;
  const Mesh& mesh;

  BuildContext child(std::string_view name) const { return {build.child(name), mesh}; }
  BuildContext child(std::string_view name, std::int64_t index) const { return {build.child(name, index), mesh}; }
};

}  // namespace weft
