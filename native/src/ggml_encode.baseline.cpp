#include "ggml_encode_kernel.hpp"

namespace surprisal {
const GgmlEncodeRange kGgmlEncodeBaseline = encode_range;
}  // namespace surprisal
