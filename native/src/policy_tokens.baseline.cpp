#include "policy_tokens_loops.hpp"

namespace surprisal {

const PolicyTokenLoops kPolicyTokensBaseline = kPolicyTokenLoops;

}  // namespace surprisal
