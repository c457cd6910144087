#include "optimizer_steps_loops.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const OptimizerKernels kOptimizerBaseline = {OptimizerSteps<V32>::kLoops, OptimizerSteps<V64>::kLoops};

}  // namespace surprisal
