#include "memory.hpp"

#include <atomic>
#include <cstring>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "thread_pool.hpp"

namespace surprisal {

uint64_t read_memory(const uint8_t* data, int64_t bytes, int threads) {
  std::atomic<uint64_t> total{0};
  parallel_for(bytes / 64, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    uint64_t sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int64_t line = begin; line < end; line++) {
      uint64_t words[8];
      std::memcpy(words, data + 64 * line, 64);
      for (int k = 0; k < 8; k++) sum[k] += words[k];
    }
    uint64_t all = 0;
    for (int k = 0; k < 8; k++) all += sum[k];
    total.fetch_add(all, std::memory_order_relaxed);
  });
  return total.load();
}

bool trim_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
  return true;
#else
  return false;
#endif
}

}  // namespace surprisal
