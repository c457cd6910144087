#if defined(__x86_64__)
#include "column_information_loops.hpp"

namespace surprisal {
const DensityLoops kDensityLoopsAvx512 = {stamp, fold};
}  // namespace surprisal
#endif
