#if defined(__x86_64__)
#include "policy_tokens_loops.hpp"

namespace surprisal {

const PolicyTokenLoops kPolicyTokensAvx2 = kPolicyTokenLoops;

}  // namespace surprisal
#endif
