#include "merge_measures_loops.hpp"

namespace surprisal {

const MeasureKernels kMeasureBaseline = kMeasureLoops;

}  // namespace surprisal
