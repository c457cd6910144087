#if defined(__x86_64__)
#include "absmax_rounding_loops.hpp"

namespace surprisal {
const RoundingKernels kRoundingAvx512 = {largest, codes};
}  // namespace surprisal
#endif
