// What a test sees and sets of the stand-in for cuDNN: the library exports FakeCudnn* fake_cudnn().
#pragma once
#include <cstddef>
#include <cstdint>

namespace weft::test {

struct FakeCudnn {
  std::size_t version = 91900;
  int live = 0;  ///< handles and descriptors not destroyed
  int plans = 0, executions = 0;
  void* last_stream = nullptr;
  std::int64_t last_engine = -1;  ///< of the last plan
  int last_knobs = 0;             ///< settings that were asked for
  std::int64_t largest_workspace = 0;

  int nondeterministic = 1;  ///< that many of the three proposals say so, the first ones
  int proposals = 3;
  bool stores_scores = true;  ///< whether a backward plan has a place for the gradient of the scores
  int create_status = 0, execute_status = 0;
  int failing_type = -1;        ///< descriptors of this type…
  int failing_status = 0;       ///< …give this when they are finalized…
  int failing_times = 1 << 30;  ///< …so often
};

}  // namespace weft::test
