#if defined(__x86_64__)
#include "cached_attention_loops.hpp"

namespace surprisal {

const AttentionKernel kAttentionAvx512 = attend_block;

}  // namespace surprisal
#endif
