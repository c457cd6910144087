#include "cached_attention.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

AttentionKernel attention_kernel() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kAttentionAvx512;
  if (simd_level() == Simd::Avx2) return kAttentionAvx2;
#endif
  return kAttentionBaseline;
}

// Puts the new keys and values of one row and head into their cache.
void append(const AttentionRequest& r, int64_t row, int64_t head) {
  const int64_t start = r.starts[row];
  for (int64_t i = 0; i < r.count; i++) {
    const int64_t from = ((row * r.count + i) * r.kv_heads + head) * r.head_dim;
    const int64_t to = ((row * r.kv_heads + head) * r.capacity + start + i) * r.head_dim;
    memcpy(r.key_cache + to, r.keys + from, r.head_dim * sizeof(float));
    memcpy(r.value_cache + to, r.values + from, r.head_dim * sizeof(float));
  }
}

}  // namespace

void cached_attention(const AttentionRequest& r, int threads) {
  const AttentionKernel kernel = attention_kernel();
  const int64_t group = r.heads / r.kv_heads;
  const int64_t lanes = group * r.count;  // queries that share a head of keys
  const int64_t blocks = (lanes + kMostQueries - 1) / kMostQueries;
  const int64_t pairs = r.rows * r.kv_heads;
  parallel_for(pairs, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; pair++) append(r, pair / r.kv_heads, pair % r.kv_heads);
  });
  parallel_for(pairs * blocks, std::max<int64_t>(1, 64 / kMostQueries / group), threads,
               [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scores;
    for (int64_t task = begin; task < end; task++) {
      const int64_t pair = task / blocks;
      const int64_t row = pair / r.kv_heads;
      const int64_t kv_head = pair % r.kv_heads;
      const int64_t first = (task % blocks) * kMostQueries;
      QueryBlock block;
      block.count = static_cast<int>(std::min<int64_t>(kMostQueries, lanes - first));
      int64_t most = 0;
      for (int m = 0; m < block.count; m++) {
        const int64_t position = (first + m) / group;
        const int64_t head = kv_head * group + (first + m) % group;
        const int64_t at = ((row * r.count + position) * r.heads + head) * r.head_dim;
        block.queries[m] = r.queries + at;
        block.outs[m] = r.out + at;
        block.to[m] = r.starts[row] + position + 1;
        block.from[m] = r.window > 0 ? std::max<int64_t>(0, block.to[m] - r.window) : 0;
        most = std::max(most, block.to[m]);
      }
      block.keys = r.key_cache + pair * r.capacity * r.head_dim;
      block.values = r.value_cache + pair * r.capacity * r.head_dim;
      block.head_dim = r.head_dim;
      block.scale = r.scale;
      block.softcap = r.softcap;
      block.stride = (most + 7) / 8 * 8;
      if (static_cast<int64_t>(scores.size()) < kMostQueries * block.stride) scores.resize(kMostQueries * block.stride);
      block.scores = scores.data();
      kernel(block);
    }
  });
}

}  // namespace surprisal
