// The scan of entries in windows of AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include "pyramid_index_kernel.hpp"

namespace surprisal {
namespace {

// Eight entries that end at at[0], lanes of both registers mixed: only how many are above counts.
static inline uint32_t eight_above(const int64_t* at, __m256i key) {
  const __m256i near = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at - 3));
  const __m256i far = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at - 7));
  const __m256i mixed =
      _mm256_blend_epi32(_mm256_cmpgt_epi64(near, key), _mm256_cmpgt_epi64(far, key), 0b10101010);
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(mixed)));
}

// Windows of kEights times eight entries: wide ones where coordinates are large, so that one window is mostly enough.
template <int kEights>
struct WindowScan {
  static inline int64_t window(const int64_t* at, __m256i key) {
    uint32_t mask = 0;
    for (int e = 0; e < kEights; e++) mask |= eight_above(at - 8 * e, key) << (8 * e);
    return __builtin_popcount(mask);
  }

  static inline int64_t above(const int64_t* at, int64_t key) {
    const __m256i all = _mm256_set1_epi64x(key);
    int64_t count = window(at, all);
    if (__builtin_expect(count < 8 * kEights, 1)) return count;
    for (;;) {
      const int64_t found = window(at - count, all);
      count += found;
      if (found < 8 * kEights) return count;
    }
  }
};

}  // namespace

const DecodeKernels kDecodeKernelsAvx2 = {decode_groups<WindowScan<1>>, decode_groups<WindowScan<2>>, scale_groups};

}  // namespace surprisal
#endif
