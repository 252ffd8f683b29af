// What a test sees and sets of the stand-in for cuBLASLt: the library exports FakeCublasLt* fake_cublaslt().
#pragma once

namespace weft::test {

struct FakeCublasLt {
  int heuristics = 0, products = 0;  ///< calls
  int live = 0;                      ///< handles and descriptors not destroyed
  int last_algorithm = -1;           ///< which of the proposals the last product took
  int refused_algorithm = -1;        ///< a proposal that products do not take
  bool refuse_epilogues = false, refuse_all = false, no_device = false;
};

}  // namespace weft::test
