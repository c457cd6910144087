#include "self_attention_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const SelfAttentionLoops kSelfAttentionBaseline = SelfAttentionOver<V32>::table();

}  // namespace surprisal
