// Owns a model's parameters and lays their values and gradients out in flat storage.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/autograd/parameter.hpp"

namespace weft {

class ParameterStore {
 public:
  /// Throws Error on a second parameter of the same name.
  Parameter& add(std::string name, Slice slice, Init init);
  /// A second name of the same parameter (tied weights), as it stands in checkpoints.
  void add_alias(std::string alias, const Parameter& parameter);

  struct Alias {
    std::string name;
    std::string target;
  };
  const std::vector<Alias>& aliases() const { return aliases_; }

  /// In construction order.
  std::span<Parameter* const> all() const { return order_; }
  /// Null if there is none.
  Parameter* find(const std::string& name) const;
  /// Elements of all logical tensors.
  std::int64_t global_numel() const;

  /// Where each parameter lies in the flat buffers: those of one placement together, so that their gradients are summed
  /// together, and among them in reverse construction order, which is about the order in which gradients become ready;
  /// each at a multiple of 16 elements.
  struct Place {
    Parameter* parameter;
    std::int64_t offset;
    std::int64_t count;
  };
  /// Allocates the flat value buffer, zeroed, and gives each parameter its part.
  void allocate_values(ExecContext& exec);
  /// The same for gradients; without it a model can only be evaluated.
  void allocate_grads(ExecContext& exec);
  const std::vector<Place>& places() const { return places_; }
  const Tensor& flat_values() const { return flat_values_; }
  const Tensor& flat_grads() const { return flat_grads_; }

  /// Fills all values from (seed, name, global element index).
  void initialize(ExecContext& exec, std::uint64_t seed);
  /// Starts a step's gradients.
  void begin_step();

 private:
  void lay_out();
  std::deque<Parameter> parameters_;
  std::vector<Parameter*> order_;
  std::vector<Alias> aliases_;
  std::vector<Place> places_;
  std::int64_t flat_size_ = 0;
  Tensor flat_values_;
  Tensor flat_grads_;
};

/// Where a module stands: it names parameters, children and dropout sites. Cheap to copy.
class Builder {
 public:
  explicit Builder(ParameterStore& store) : store_(&store), sites_(std::make_shared<int>(0)) {}

  Builder child(std::string_view name) const;
  Builder child(std::string_view name, std::int64_t index) const;
  Parameter& param(std::string_view name, Slice slice, Init init) const;
  void alias(std::string_view name, const Parameter& parameter) const;
  /// Numbered in construction order, the same under any layout.
  int dropout_site() const { return (*sites_)++; }
  int dropout_sites() const { return *sites_; }
  std::string path(std::string_view name) const;

 private:
  ParameterStore* store_;
  std::string prefix_;
  std::shared_ptr<int> sites_;
};

}  // namespace weft
