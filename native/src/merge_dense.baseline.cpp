#include "merge_dense_loops.hpp"

namespace surprisal {

const MergeDenseKernels kMergeDenseBaseline = kMergeDenseLoops;

}  // namespace surprisal
