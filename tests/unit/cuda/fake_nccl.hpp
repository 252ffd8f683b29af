// What a test tells the fake NCCL, by its symbol fake_nccl.
#pragma once

struct FakeNccl {
  /// From now on this rank's collectives do nothing and leave a remote error behind, all-gathers return it; -1: none. Returns
  /// the rank before.
  int (*fail_rank)(int rank);
  /// Communicators that were made and neither destroyed nor aborted.
  int (*alive)();
  int (*aborted)();
  /// The function of this name returns `status` and does nothing; null: all work.
  void (*refuse)(const char* name, int status);
};
