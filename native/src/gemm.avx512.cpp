#if defined(__x86_64__)
#include <immintrin.h>

#include "gemm_kernel.hpp"

namespace surprisal {
namespace {

struct Double8 {
  using T = double;
  using V = __m512d;
  static constexpr int N = 8;
  static constexpr int kRows = 8;
  static constexpr int kVectors = 3;
  static constexpr int kSquare = 8;
  static V load(const T* p) { return _mm512_loadu_pd(p); }
  static void store(T* p, V v) { _mm512_storeu_pd(p, v); }
  static V set1(T v) { return _mm512_set1_pd(v); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  static inline __attribute__((always_inline)) void transpose(const T* from, int64_t from_step, T* to,
                                                              int64_t to_step) {
    V r[8], s[8];
    for (int i = 0; i < 8; i++) r[i] = load(from + i * from_step);
    for (int i = 0; i < 8; i += 2) {
      s[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
      s[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
    // s[i]: columns (0 2 4 6) of rows (i, i + 1) in the four lanes; s[i + 1]: columns (1 3 5 7).
    for (int odd = 0; odd < 2; odd++) {
      const V a = _mm512_shuffle_f64x2(s[odd], s[2 + odd], 0x88);      // rows 0-3: lanes 0, 2
      const V b = _mm512_shuffle_f64x2(s[odd], s[2 + odd], 0xdd);      // rows 0-3: lanes 1, 3
      const V c = _mm512_shuffle_f64x2(s[4 + odd], s[6 + odd], 0x88);  // rows 4-7
      const V d = _mm512_shuffle_f64x2(s[4 + odd], s[6 + odd], 0xdd);
      store(to + (0 + odd) * to_step, _mm512_shuffle_f64x2(a, c, 0x88));
      store(to + (4 + odd) * to_step, _mm512_shuffle_f64x2(a, c, 0xdd));
      store(to + (2 + odd) * to_step, _mm512_shuffle_f64x2(b, d, 0x88));
      store(to + (6 + odd) * to_step, _mm512_shuffle_f64x2(b, d, 0xdd));
    }
  }
};

struct Float16 {
  using T = float;
  using V = __m512;
  static constexpr int N = 16;
  static constexpr int kRows = 8;
  static constexpr int kVectors = 3;
  static constexpr int kSquare = 4;
  static V load(const T* p) { return _mm512_loadu_ps(p); }
  static void store(T* p, V v) { _mm512_storeu_ps(p, v); }
  static V set1(T v) { return _mm512_set1_ps(v); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static inline __attribute__((always_inline)) void transpose(const T* from, int64_t from_step, T* to,
                                                              int64_t to_step) {
    __m128 r[4];
    for (int i = 0; i < 4; i++) r[i] = _mm_loadu_ps(from + i * from_step);
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * to_step, r[i]);
  }
};

}  // namespace

extern const GemmKernels kGemmKernelsAvx512 = {tile_kernels<Double8>(), tile_kernels<Float16>()};

}  // namespace surprisal
#endif
