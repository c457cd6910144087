#include "cached_attention_loops.hpp"

namespace surprisal {

const AttentionKernel kAttentionBaseline = attend_block;

}  // namespace surprisal
