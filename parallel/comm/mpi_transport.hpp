// A group of ranks over MPI. Internal to the MPI runtime.
#pragma once
#include "parallel/comm/mpi_engine.hpp"
#include "parallel/comm/transport.hpp"

namespace weft {

class MpiTransport final : public Transport {
 public:
  /// `engine` and `places`, of all world ranks, outlive the transport.
  MpiTransport(MpiEngine& engine, const std::vector<RankPlace>& places, std::shared_ptr<MpiGroup> group);
  int rank() const override { return group_->rank; }
  const std::vector<int>& members() const override { return group_->members; }
  bool serves(DeviceId device) const override { return device.kind == DeviceKind::cpu; }
  void start(std::shared_ptr<Operation> operation) override { engine_.submit(std::move(operation), group_); }
  int free_context() const override { return engine_.free_context(); }
  std::unique_ptr<Transport> subgroup(const std::vector<int>& members, int context, const std::string& name) override;

 private:
  MpiEngine& engine_;
  const std::vector<RankPlace>& places_;
  std::shared_ptr<MpiGroup> group_;
};

}  // namespace weft
