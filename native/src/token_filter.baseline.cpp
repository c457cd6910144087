#include "token_filter_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const TokenKernels kTokenBaseline = {TokenLoopsOver<V32, V64>::table(), TokenLoopsOver<V64, V64>::table()};

}  // namespace surprisal
