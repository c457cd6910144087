#if defined(__x86_64__)
#include "merge_measures_loops.hpp"

namespace surprisal {

const MeasureKernels kMeasureAvx512 = kMeasureLoops;

}  // namespace surprisal
#endif
