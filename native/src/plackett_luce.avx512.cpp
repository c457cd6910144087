#if defined(__x86_64__)
#include "plackett_luce_loops.hpp"
#include "vectors_avx512.hpp"

namespace surprisal {

const PlackettLuceLoops kPlackettLuceAvx512 = PlackettLuceLoopsOver<V32, V64>::table();

}  // namespace surprisal
#endif
