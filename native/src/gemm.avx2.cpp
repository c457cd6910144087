#if defined(__x86_64__)
#include <immintrin.h>

#include "gemm_kernel.hpp"

namespace surprisal {
namespace {

struct Double4 {
  using T = double;
  using V = __m256d;
  static constexpr int N = 4;
  static constexpr int kRows = 4;
  static constexpr int kVectors = 3;
  static constexpr int kSquare = 4;
  static V load(const T* p) { return _mm256_loadu_pd(p); }
  static void store(T* p, V v) { _mm256_storeu_pd(p, v); }
  static V set1(T v) { return _mm256_set1_pd(v); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  static inline __attribute__((always_inline)) void transpose(const T* from, int64_t from_step, T* to,
                                                              int64_t to_step) {
    const V a = load(from), b = load(from + from_step);
    const V c = load(from + 2 * from_step), d = load(from + 3 * from_step);
    const V ab_even = _mm256_unpacklo_pd(a, b), ab_odd = _mm256_unpackhi_pd(a, b);
    const V cd_even = _mm256_unpacklo_pd(c, d), cd_odd = _mm256_unpackhi_pd(c, d);
    store(to, _mm256_permute2f128_pd(ab_even, cd_even, 0x20));
    store(to + to_step, _mm256_permute2f128_pd(ab_odd, cd_odd, 0x20));
    store(to + 2 * to_step, _mm256_permute2f128_pd(ab_even, cd_even, 0x31));
    store(to + 3 * to_step, _mm256_permute2f128_pd(ab_odd, cd_odd, 0x31));
  }
};

struct Float8 {
  using T = float;
  using V = __m256;
  static constexpr int N = 8;
  static constexpr int kRows = 4;
  static constexpr int kVectors = 3;
  static constexpr int kSquare = 4;
  static V load(const T* p) { return _mm256_loadu_ps(p); }
  static void store(T* p, V v) { _mm256_storeu_ps(p, v); }
  static V set1(T v) { return _mm256_set1_ps(v); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static inline __attribute__((always_inline)) void transpose(const T* from, int64_t from_step, T* to,
                                                              int64_t to_step) {
    __m128 r[4];
    for (int i = 0; i < 4; i++) r[i] = _mm_loadu_ps(from + i * from_step);
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * to_step, r[i]);
  }
};

}  // namespace

extern const GemmKernels kGemmKernelsAvx2 = {tile_kernels<Double4>(), tile_kernels<Float8>()};

}  // namespace surprisal
#endif
