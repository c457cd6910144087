#include "merge_importance_loops.hpp"

namespace surprisal {

const ImportanceKernels kImportanceBaseline = kImportanceLoops;

}  // namespace surprisal
