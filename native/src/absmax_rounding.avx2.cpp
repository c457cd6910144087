#if defined(__x86_64__)
#include "absmax_rounding_loops.hpp"

namespace surprisal {
const RoundingKernels kRoundingAvx2 = {largest, codes};
}  // namespace surprisal
#endif
