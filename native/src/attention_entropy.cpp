#include "attention_entropy.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "thread_pool.hpp"

namespace surprisal {

int64_t attention_entropy(const float* probabilities, int64_t rows, int64_t keys, int64_t row_stride,
                          const int32_t* starts, const int32_t* ends, double* entropies, double* masses, int threads) {
  constexpr int64_t none = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> bad{none};
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, keys));
  parallel_for(rows, grain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float* row = probabilities + r * row_stride;
      const int64_t first = starts == nullptr ? 0 : starts[r];
      const int64_t last = ends == nullptr ? keys : ends[r];
      double entropy = 0;
      double mass = 0;
      bool clean = true;
      for (int64_t j = first; j < last; j++) {
        const double a = row[j];
        if (!(a >= 0 && a < std::numeric_limits<double>::infinity())) {
          clean = false;
          break;
        }
        mass += a;
        if (a > 0) entropy -= a * std::log(a);
      }
      entropies[r] = entropy;
      masses[r] = mass;
      if (clean) continue;
      int64_t least = bad.load();
      while (r < least && !bad.compare_exchange_weak(least, r)) {
      }
    }
  });
  return bad.load() == none ? -1 : bad.load();
}

}  // namespace surprisal
