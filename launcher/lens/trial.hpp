// Groups of ranks that a lens spreads mixers over, and timed passes on them.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "launcher/lens/lens.hpp"
#include "launcher/lens/specimen.hpp"

namespace weft {

/// The mesh over the world's first ranks along one axis. Ranks behind them have none.
class SpreadGroup {
 public:
  /// Collective over the worker's world, and measures how fast the group communicates.
  SpreadGroup(const Worker& worker, const Spread& spread);

  const Spread& spread() const { return spread_; }
  MeshSizes sizes() const;
  bool member() const { return mesh_ != nullptr; }
  Mesh& mesh() { return *mesh_; }
  Communicator& ranks() { return *ranks_; }
  const LinkSpeed& link() const { return link_; }
  /// What the log has counted in the mesh's groups so far: bytes that this rank sent, and collectives that it started.
  struct Count {
    std::string group, operation;
    std::uint64_t started = 0, bytes = 0;
  };
  std::vector<Count> counts() const;

 private:
  void measure_link(Engine& engine);

  Spread spread_;
  CommLog& log_;
  std::string prefix_;  ///< of its groups' names
  std::unique_ptr<Communicator> ranks_;
  std::unique_ptr<Mesh> mesh_;
  LinkSpeed link_;
};

/// One mixer on one group at one shape: passes in turns with others', then a row.
class Trial {
 public:
  /// On a member alone.
  Trial(Specimen& specimen, SpreadGroup& group, CommLog& log, LensShape shape);

  /// One pass forward and back; those that are not `timed` warm caches. Collective over the group.
  enum class Timing : bool { none, kept };
  void run(Timing timing);
  /// Fills in what was measured and counted. Collective over the group; whole on its rank 0.
  void report(LensRow& row);

 private:
  Specimen& specimen_;
  SpreadGroup& group_;
  CommLog& log_;
  LensShape shape_;
  Tensor x_, dy_;
  std::vector<double> forward_ms_, backward_ms_;
  PassCost forward_, backward_;  ///< of this rank
  RankLoad forward_load_, backward_load_;
  std::vector<Traffic> traffic_;  ///< of this rank
  std::uint64_t activation_bytes_ = 0;
};

}  // namespace weft
