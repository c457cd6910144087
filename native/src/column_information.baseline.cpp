#include "column_information_loops.hpp"

namespace surprisal {
const DensityLoops kDensityLoopsBaseline = {stamp, fold};
}  // namespace surprisal
