#if defined(__x86_64__)
#include "self_attention_kernel.hpp"
#include "vectors_avx512.hpp"

namespace surprisal {

const SelfAttentionLoops kSelfAttentionAvx512 = SelfAttentionOver<V32>::table();

}  // namespace surprisal
#endif
