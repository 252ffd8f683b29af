// Owns a model's parameters and lays their values and gradients out in flat storage.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/autograd/parameter.hpp"
#include "core/base/range.hpp"

namespace weft {

/// How flat buffers are cut into buckets, and which part of each bucket this rank keeps where ranks share it out (ZeRO).
struct FlatCut {
  /// The ranks that share out a bucket, and this rank's place among them.
  struct Share {
    int ranks = 1;
    int rank = 0;
  };
  std::size_t bucket_bytes = std::size_t{4} << 20;  ///< a bucket is closed when it reaches this
  bool at_units = false;                            ///< and where another unit begins: a block, the embedding, the head
  /// Of parameters of a placement; empty: every rank keeps all.
  std::function<Share(const Slice&)> share;
  /// Elements of a parameter that count toward a bucket's size: the same on all ranks, so that they cut alike; empty: those
  /// held here.
  std::function<std::int64_t(const Slice&)> weight;
};

/// What of a flat buffer is in memory: all of it, or what this rank keeps of each bucket.
enum class FlatExtent : std::uint8_t { whole, kept };

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
    std::size_t bucket;
    Range kept;            ///< of its elements, on this rank
    std::int64_t kept_at;  ///< where they lie in a buffer of kept parts
  };
  /// Neighbouring places whose gradients travel together. Its length is a multiple of 16 times the ranks that share it out, of
  /// which each keeps an equal part.
  struct Bucket {
    std::int64_t begin, end;
    Range kept;            ///< in the whole buffer
    std::int64_t kept_at;  ///< where it lies in a buffer of kept parts
    std::size_t first_place, end_place;
    std::string unit;
  };
  /// A part of a tensor of a parameter's shape as it is stored here: `data` are the slice's elements in order.
  struct Stored {
    Slice slice;
    Tensor data;
  };

  /// Cuts the flat buffers; before anything is allocated. Without it they are cut as FlatCut's defaults say.
  void lay_out(const FlatCut& cut);
  /// Allocates the flat value buffer, zeroed, and where all of it is there, gives each parameter its part.
  void allocate_values(ExecContext& exec, FlatExtent extent = FlatExtent::whole);
  /// The same for gradients; without it a model can only be evaluated.
  void allocate_grads(ExecContext& exec, FlatExtent extent = FlatExtent::whole);
  const std::vector<Place>& places() const { return places_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  const Tensor& flat_values() const { return flat_values_; }
  const Tensor& flat_grads() const { return flat_grads_; }
  FlatExtent values_extent() const { return values_extent_; }
  FlatExtent grads_extent() const { return grads_extent_; }
  /// Elements of a whole buffer, and of one of kept parts.
  std::int64_t flat_size() const { return flat_size_; }
  std::int64_t kept_size() const { return kept_size_; }

  /// This rank's part of a value, of a summed gradient, and of a tensor of optimizer state (a buffer of kept parts).
  Stored stored_value(const Place& place) const;
  Stored stored_grad(const Place& place) const;
  Stored stored_state(const Place& place, const Tensor& flat) const;

  /// Fills all values from (seed, name, global element index).
  void initialize(ExecContext& exec, std::uint64_t seed);
  /// Starts a step's gradients.
  void begin_step();

 private:
  void lay_out_once();
  void cut_bucket(const FlatCut& cut, std::size_t first, std::size_t end);
  Stored kept_part(const Place& place, const Tensor& flat, FlatExtent extent) const;
  std::deque<Parameter> parameters_;
  std::vector<Parameter*> order_;
  std::vector<Alias> aliases_;
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  std::int64_t flat_size_ = 0;
  std::int64_t kept_size_ = 0;
  FlatExtent values_extent_ = FlatExtent::whole;
  FlatExtent grads_extent_ = FlatExtent::whole;
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
