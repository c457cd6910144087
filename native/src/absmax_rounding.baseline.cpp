#include "absmax_rounding_loops.hpp"

namespace surprisal {
const RoundingKernels kRoundingBaseline = {largest, codes};
}  // namespace surprisal
