#include "self_attention.hpp"

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

const SelfAttentionLoops& loops() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kSelfAttentionAvx512;
  if (simd_level() == Simd::Avx2) return kSelfAttentionAvx2;
#endif
  return kSelfAttentionBaseline;
}

}  // namespace

void self_attention_forward(const SelfAttention& r, int threads) {
  const auto body = loops().forward;
  parallel_for(r.batch * r.kv_heads, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; unit++) body(r, unit / r.kv_heads, unit % r.kv_heads);
  });
}

void self_attention_backward(const SelfAttention& r, int threads) {
  const auto body = loops().backward;
  parallel_for(r.batch * r.kv_heads, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; unit++) body(r, unit / r.kv_heads, unit % r.kv_heads);
  });
}

}  // namespace surprisal
