#if defined(__x86_64__)
#include "token_filter_kernel.hpp"
#include "vectors_avx2.hpp"

namespace surprisal {

const TokenKernels kTokenAvx2 = {TokenLoopsOver<V32, V64>::table(), TokenLoopsOver<V64, V64>::table()};

}  // namespace surprisal
#endif
