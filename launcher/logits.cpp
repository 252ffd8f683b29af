#include "launcher/logits.hpp"

#include <algorithm>
#include <cstring>

#include "core/io/safetensors.hpp"
#include "launcher/training_step.hpp"

namespace weft {
namespace {

// Logits of so many rows stand in memory at a time.
constexpr std::int64_t rows_at_a_time = 64;

struct Stopped {};

/// The logits of one window after the other, as bytes in order.
class LogitStream {
 public:
  LogitStream(const Worker& worker, const LanguageModel& model, const EvalWindows& windows, DType compute,
              const std::function<bool()>& stop)
      : worker_(worker), model_(model), windows_(windows),
        stop_(stop), cx_{worker.engine.exec(), nullptr, compute, {}, nullptr}, device_(cx_.exec, 1, windows.seq()) {
    cx_.tokens = share_tokens(windows.seq(), TokenOrder::contiguous, 1, 0);
  }

  void read(std::span<std::byte> piece) {
    while (!piece.empty()) {
      const std::span<const std::byte> bytes = std::as_bytes(std::span(rows_)).subspan(given_);
      if (bytes.empty()) {
        next_rows();
        continue;
      }
      const std::size_t count = std::min(piece.size(), bytes.size());
      std::memcpy(piece.data(), bytes.data(), count);
      given_ += count;
      piece = piece.subspan(count);
    }
  }

 private:
  void next_rows() {
    const std::int64_t width = model_.config().d_model;
    if (row_ == windows_.seq() || !hidden_.defined()) {
      if (stop_()) throw Stopped{};
      windows_.fill(window_++, 1, batch_);
      device_.fill(cx_.exec, batch_);
      hidden_ = model_.hidden(cx_, device_.tokens(0, 1));
      row_ = 0;
    }
    const std::int64_t rows = std::min(rows_at_a_time, windows_.seq() - row_);
    rows_.resize(static_cast<std::size_t>(rows * model_.config().vocab));
    logits_on_host(worker_.engine, model_, cx_, hidden_.window(row_ * width, {rows, width}), rows_);
    row_ += rows;
    given_ = 0;
  }

  const Worker& worker_;
  const LanguageModel& model_;
  const EvalWindows& windows_;
  const std::function<bool()>& stop_;
  OpContext cx_;
  DeviceBatch device_;
  Batch batch_;
  Tensor hidden_;            ///< of the window
  std::int64_t window_ = 0;  ///< the next one
  std::int64_t row_ = 0;     ///< the next one of the window
  std::vector<float> rows_;  ///< logits
  std::size_t given_ = 0;    ///< bytes of them
};

}  // namespace

void logits_on_host(Engine& engine, const LanguageModel& model, OpContext& cx, const Tensor& hidden,
                    std::span<float> logits) {
  const Shape shape{hidden.shape()[0], model.config().vocab};
  WEFT_CHECK(static_cast<std::int64_t>(logits.size()) == shape.numel(), "{} logits", logits.size());
  ExecContext& exec = engine.exec();
  const Tensor own = model.logits(cx, hidden);
  const Tensor wide = Tensor::empty(engine.memory(), shape, DType::f32, MemoryUse::activation);
  exec.kernels().elementwise.copy(exec, own.view(), wide.mut());
  exec.kernels().transfer.download(exec, wide.view(), MutView(logits.data(), shape, DType::f32));
}

bool write_logits(const std::filesystem::path& path, const Worker& worker, const LanguageModel& model,
                  const EvalWindows& windows, const EvaluationOptions& options, const std::function<bool()>& stop) {
  const std::int64_t count = evaluated_windows(windows, options), seq = windows.seq();
  Batch batch;
  windows.fill(0, count, batch);
  LogitStream stream(worker, model, windows, options.compute, stop);
  const SafetensorsSource sources[] = {
      {"tokens", View(batch.tokens.data(), {count, seq}, DType::i32)},
      {"targets", View(batch.targets.data(), {count, seq}, DType::i32)},
      {"logits", DType::f32, {count, seq, model.config().vocab}, [&](std::size_t, std::span<std::byte> piece) {
         stream.read(piece);
       }}};
  try {
    write_safetensors(path, sources);
  } catch (const Stopped&) {
    return false;
  }
  return true;
}

}  // namespace weft
