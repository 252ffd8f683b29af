#include "tests/distributed/train/breakable_transport.hpp"

namespace weft::test {
namespace {

class BreakableTransport final : public Transport {
 public:
  BreakableTransport(Communicator& inner, Break what) : inner_(inner), what_(what) {}
  int rank() const override { return inner_.rank(); }
  const std::vector<int>& members() const override { return inner_.members(); }
  bool serves(DeviceId) const override { return true; }

  void start(std::shared_ptr<Operation> operation) override {
    const Collective& what = operation->what();
    switch (what.kind) {
      case CollectiveKind::all_reduce:
        if (!skipped(what)) inner_.all_reduce(what.output, {what.reduce, what.wire, nullptr}).wait();
        if (what_ == Break::scale_gradients && what.output.dtype == DType::f32)
          for (std::int64_t i = 0; i < what.output.numel(); ++i) what.output.as<float>()[i] *= 2;
        break;
      case CollectiveKind::all_gather: inner_.all_gather(what.input, what.output).wait(); break;
      case CollectiveKind::broadcast: inner_.broadcast(what.output, what.peer).wait(); break;
      default: fail("{} is not part of data-parallel training", name_of(what.kind));
    }
    operation->finish();
  }

  int free_context() const override { return 0; }
  std::unique_ptr<Transport> subgroup(const std::vector<int>& members, int, const std::string&) override {
    if (members.size() == 1) return nullptr;
    WEFT_CHECK(static_cast<int>(members.size()) == inner_.size());
    return std::make_unique<BreakableTransport>(inner_, what_);
  }

 private:
  bool skipped(const Collective& what) const {
    if (what.output.dtype == DType::f32) return what_ == Break::skip_gradients;
    if (what.output.dtype != DType::f64) return false;
    return what_ == (what.output.numel() == 1 ? Break::skip_denominator : Break::skip_loss);
  }

  Communicator& inner_;
  Break what_;
};

}  // namespace

std::unique_ptr<Communicator> make_breakable(Communicator& inner, CommLog& log, Break what) {
  return std::make_unique<Communicator>(std::make_unique<BreakableTransport>(inner, what), log, "breakable",
                                        Priority::urgent);
}

}  // namespace weft::test
