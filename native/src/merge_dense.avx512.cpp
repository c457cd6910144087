#if defined(__x86_64__)
#include "merge_dense_loops.hpp"

namespace surprisal {

const MergeDenseKernels kMergeDenseAvx512 = kMergeDenseLoops;

}  // namespace surprisal
#endif
