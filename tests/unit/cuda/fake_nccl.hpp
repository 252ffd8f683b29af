// What a test tells the fake NCCL, by its symbol fake_nccl.
#pragma once

struct FakeNccl {
  /// From now on this rank's all-reduces and all-gathers do nothing and leave a remote error behind, all-reduces when they
  /// have returned, all-gathers while they are in progress; -1: none. Returns the rank before.
  int (*fail_rank)(int rank);
  /// Communicators that were made and neither destroyed nor aborted.
  int (*alive)();
  int (*aborted)();
};
