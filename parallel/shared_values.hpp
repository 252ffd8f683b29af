// Parameters' values that ranks share out (ZeRO). In stages 1 and 2 each rank updates its part of a bucket and gathers the
// others', while the next step begins. In stage 3 it has its part alone: a unit of the model (a block, the embedding, the head)
// is gathered before its first use in a pass, while the one before it computes, and given back when the next one is used.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "core/nn/parameter_store.hpp"
#include "parallel/mesh.hpp"
#include "parallel/zero.hpp"

namespace weft {

class SharedValues {
 public:
  /// Hangs itself on the hooks of the store's parameters, which allocate_parameters() has allocated for the same stage. The
  /// store, the mesh and this outlive training.
  SharedValues(ExecContext& exec, ParameterStore& store, Mesh& mesh, ZeroStage zero);
  ~SharedValues();
  SharedValues(const SharedValues&) = delete;
  SharedValues& operator=(const SharedValues&) = delete;

  /// Around the forward and backward pass of a micro-batch: units are used in the order of the last pass, so the next one is
  /// known. Outside of passes nothing is gathered ahead.
  void begin_pass();
  void end_pass();
  /// After the optimizer has updated this rank's parts.
  void updated();
  /// After a replay of a step in which all that happened again on the device.
  void replayed();
  /// Waits until all values that this rank holds are there, for readers that are no operations.
  void settle();

 private:
  struct Bucket {
    Communicator* group;
    Work work;
    Tensor gathered;  ///< stage 3, from its gathering to its giving back
  };
  struct Unit {
    std::string name;
    std::vector<std::size_t> buckets;
    bool present = false;  ///< or on its way
  };
  void enter(std::size_t unit);
  void gather(std::size_t unit);
  void give_back(std::size_t unit);
  void give_back_all_but(std::size_t unit);
  void forget();

  ExecContext& exec_;
  ParameterStore& store_;
  ZeroStage zero_;
  std::vector<Bucket> buckets_;
  std::vector<Unit> units_;
  std::size_t current_;  ///< the unit in use; past the end: none
  bool in_pass_ = false;
  bool entered_outside_ = false;     ///< a unit, since the last pass
  std::vector<std::size_t> order_;   ///< of units in this pass so far
  std::vector<std::size_t> before_;  ///< in the last one
};

}  // namespace weft
