#if defined(__x86_64__)
#include "policy_tokens_loops.hpp"

namespace surprisal {

const PolicyTokenLoops kPolicyTokensAvx512 = kPolicyTokenLoops;

}  // namespace surprisal
#endif
