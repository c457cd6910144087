#if defined(__x86_64__)
#include "optimizer_steps_loops.hpp"
#include "vectors_avx512.hpp"

namespace surprisal {

const OptimizerKernels kOptimizerAvx512 = {OptimizerSteps<V32>::kLoops, OptimizerSteps<V64>::kLoops};

}  // namespace surprisal
#endif
