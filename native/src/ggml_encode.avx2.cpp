#if defined(__x86_64__)
#include "ggml_encode_kernel.hpp"

namespace surprisal {
const GgmlEncodeRange kGgmlEncodeAvx2 = encode_range;
}  // namespace surprisal
#endif
