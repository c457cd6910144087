#if defined(__x86_64__)
#include "merge_importance_loops.hpp"

namespace surprisal {

const ImportanceKernels kImportanceAvx2 = kImportanceLoops;

}  // namespace surprisal
#endif
