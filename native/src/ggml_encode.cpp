#include "ggml_encode.hpp"

#include <cstring>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {

void encode_ggml(const GgmlEncodeRequest& request, int threads) {
  const GgmlLayout layout = ggml_layout(request.type);
  const int64_t blocks = request.rows * (request.columns / layout.block_elements);
  memset(request.target, 0, static_cast<size_t>(blocks * layout.block_bytes));
  GgmlEncodeRange encode = kGgmlEncodeBaseline;
#if defined(__x86_64__)
  if (simd_level() >= Simd::Avx2) encode = kGgmlEncodeAvx2;
#endif
  const int64_t grain = 8192 / layout.block_elements;
  parallel_for(blocks, grain, threads, [&](int64_t begin, int64_t end) { encode(request, begin, end); });
}

}  // namespace surprisal
