#include <immintrin.h>

#include "pyramid_index_kernel.hpp"

namespace surprisal {
namespace {

template <int kEights>
struct WindowScan {
  static inline int64_t above(const int64_t* at, int64_t key) {
    const __m512i all = _mm512_set1_epi64(key);
    int64_t count = 0;
    for (;;) {
      uint32_t mask = 0;
      for (int e = 0; e < kEights; e++) {
        const __m512i entries = _mm512_loadu_si512(at - count - 8 * e - 7);
        mask |= static_cast<uint32_t>(_mm512_cmpgt_epi64_mask(entries, all)) << (8 * e);
      }
      const int64_t found = __builtin_popcount(mask);
      count += found;
      if (__builtin_expect(found < 8 * kEights, 1)) return count;
    }
  }
};

}  // namespace

const DecodeKernels kDecodeKernelsAvx512 = {decode_groups<WindowScan<1>>, decode_groups<WindowScan<2>>, scale_groups};

}  // namespace surprisal
