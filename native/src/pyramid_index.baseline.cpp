#include "pyramid_index_kernel.hpp"

namespace surprisal {
namespace {

// One entry after another: coordinates are mostly small.
struct LinearScan {
  static inline int64_t above(const int64_t* at, int64_t key) {
    int64_t count = 0;
    while (at[-count] > key) count++;
    return count;
  }
};

}  // namespace

const DecodeKernels kDecodeKernelsBaseline = {decode_groups<LinearScan>, decode_groups<LinearScan>, scale_groups};

}  // namespace surprisal
