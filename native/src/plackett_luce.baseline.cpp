#include "plackett_luce_loops.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const PlackettLuceLoops kPlackettLuceBaseline = PlackettLuceLoopsOver<V32, V64>::table();

}  // namespace surprisal
