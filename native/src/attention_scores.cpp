#include "attention_scores.hpp"

#include <algorithm>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Queries of one piece of work: a multiple of every kernel's group.
constexpr int64_t kBlockRows = 64;
// Packed keys are held for as many key heads as fit here, one at least.
constexpr int64_t kPackedBytes = int64_t{32} << 20;

const ScoreKernels& kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kScoreKernelsAvx512;
    case Simd::Avx2:
      return kScoreKernelsAvx2;
    default:
      break;
  }
#endif
  return kScoreKernelsBaseline;
}

int64_t first_key(const ScoreRequest& request, int64_t query) {
  if (!request.causal || request.window <= 0) return 0;
  return std::max<int64_t>(0, request.query_start + query + 1 - request.window);
}

int64_t past_last_key(const ScoreRequest& request, int64_t query) {
  if (!request.causal) return request.key_count;
  return std::min(request.key_count, request.query_start + query + 1);
}

template <class T>
void score_sums(const ScoreRequest& request, const ScoreKernel& kernel, double* sums, int threads) {
  const auto& [queries, keys, heads, key_heads, dim, query_count, key_count, start, window, causal, scale, softcap,
               temperatures, moments] = request;
  if (query_count == 0 || heads == 0) return;
  const int64_t panel = kernel.keys_per_panel;
  const int64_t group = kernel.rows_per_group;
  const int64_t first_panel = first_key(request, 0) / panel;
  const int64_t panels = std::max<int64_t>(0, (past_last_key(request, query_count - 1) + panel - 1) / panel - first_panel);
  const int64_t head_size = panels * panel * dim;
  const int64_t together =
      std::clamp<int64_t>(kPackedBytes / std::max<int64_t>(1, head_size * int64_t{sizeof(T)}), 1, key_heads);
  std::vector<T> packed(static_cast<size_t>(together * head_size));
  const int64_t sharing = heads / key_heads;
  const int64_t blocks = (query_count + kBlockRows - 1) / kBlockRows;

  for (int64_t head = 0; head < key_heads; head += together) {
    const int64_t held = std::min(together, key_heads - head);
    const int64_t pack_grain = std::max<int64_t>(1, 65536 / (panel * dim));
    parallel_for(held * panels, pack_grain, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t key = (first_panel + i % panels) * panel;
        const T* source = static_cast<const T*>(keys) + (key * key_heads + head + i / panels) * dim;
        kernel.pack_keys(source, key_heads * dim, std::min(panel, key_count - key), dim, packed.data() + i * panel * dim);
      }
    });
    // Late queries see the most keys: they go first, so that no thread is left with a long one at the end.
    parallel_for(held * sharing * blocks, 1, threads, [&](int64_t begin, int64_t end) {
      std::vector<T> rows(static_cast<size_t>(kBlockRows * dim));
      int64_t from[kBlockRows], to[kBlockRows];
      double divisors[kBlockRows];
      for (int64_t i = begin; i < end; i++) {
        const int64_t block = blocks - 1 - i / (held * sharing);
        const int64_t local = i % (held * sharing);
        const int64_t own = head * sharing + local;
        const int64_t first = block * kBlockRows;
        const int64_t count = std::min(kBlockRows, query_count - first);
        for (int64_t r = 0; r < count; r += group) {
          const T* source = static_cast<const T*>(queries) + ((first + r) * heads + own) * dim;
          kernel.pack_queries(source, heads * dim, std::min(group, count - r), dim, rows.data() + r * dim);
        }
        for (int64_t r = 0; r < count; r++) {
          from[r] = first_key(request, first + r);
          to[r] = past_last_key(request, first + r);
          divisors[r] = temperatures == nullptr ? 1 : temperatures[own * query_count + first + r];
        }
        ScoreRows work{rows.data(),   packed.data() + local / sharing * head_size,
                       first_panel,   dim,
                       count,         from,
                       to,            divisors,
                       scale,         softcap,
                       moments,       sums + (own * query_count + first) * kScoreSums};
        kernel.rows(work);
      }
    });
  }
}

}  // namespace

void attention_scores_f32(const ScoreRequest& request, double* sums, int threads) {
  score_sums<float>(request, kernels().f32, sums, threads);
}

void attention_scores_f64(const ScoreRequest& request, double* sums, int threads) {
  score_sums<double>(request, kernels().f64, sums, threads);
}

}  // namespace surprisal
