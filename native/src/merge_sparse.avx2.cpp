#if defined(__x86_64__)
#include "merge_sparse_loops.hpp"

namespace surprisal {

const SparseKernels kSparseAvx2 = kSparseLoops;

}  // namespace surprisal
#endif
