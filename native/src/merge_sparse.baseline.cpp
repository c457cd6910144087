#include "merge_sparse_loops.hpp"

namespace surprisal {

const SparseKernels kSparseBaseline = kSparseLoops;

}  // namespace surprisal
