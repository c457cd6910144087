#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#include "exp_polynomials.hpp"
#include "half.hpp"
#include "row_statistics_kernel.hpp"

namespace surprisal {
namespace {

struct V32 {
  using T = float;
  using R = __m512;
  static constexpr int N = 16;
  static constexpr float kExpLow = -200.0f;
  static R set1(float v) { return _mm512_set1_ps(v); }
  static R max(R a, R b) { return _mm512_max_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static R sqrt(R a) { return _mm512_sqrt_ps(a); }
  static uint32_t above(R a, R b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static uint32_t not_below(R a, R b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
  static R keep_above(R x, R limit, R v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), v);
  }
  static constexpr int kGroup = 2;
  template <int kCount, int kDegree>
  static inline __attribute__((always_inline)) void exp(const R* d, R* e) {
    R n[kCount], r[kCount];
    for (int k = 0; k < kCount; k++) {
      n[k] = _mm512_roundscale_ps(d[k] * set1(static_cast<float>(kLog2e)), _MM_FROUND_TO_NEAREST_INT);
    }
    for (int k = 0; k < kCount; k++) r[k] = fma(n[k], set1(-kLn2Single32), d[k]);
    polynomial_32<R, kCount, kDegree>(r, e, set1, fma);
    for (int k = 0; k < kCount; k++) e[k] = _mm512_scalef_ps(e[k], n[k]);
  }
  static R min(R a, R b) { return _mm512_min_ps(a, b); }
  static R infinite_unless_above(R x, R limit) {
    return _mm512_mask_mov_ps(set1(__builtin_inff()), _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), x);
  }
  using Wide = __m512d;
  static Wide wide_zero() { return _mm512_setzero_pd(); }
  static Wide widen_add(Wide sum, R a) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    return sum + (low + _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)));
  }
  static double wide_total(Wide sum) { return _mm512_reduce_add_pd(sum); }
  static double largest(R a) { return _mm512_reduce_max_ps(a); }
  static double smallest(R a) { return _mm512_reduce_min_ps(a); }
};

struct V64 {
  using T = double;
  using R = __m512d;
  static constexpr int N = 8;
  static constexpr double kExpLow = -800.0;
  static R set1(double v) { return _mm512_set1_pd(v); }
  static R load(const double* p) { return _mm512_loadu_pd(p); }
  static R max(R a, R b) { return _mm512_max_pd(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_pd(a, b, c); }
  static R sqrt(R a) { return _mm512_sqrt_pd(a); }
  static uint32_t above(R a, R b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
  static uint32_t not_below(R a, R b) { return _mm512_cmp_pd_mask(a, b, _CMP_GE_OQ); }
  static R keep_above(R x, R limit, R v) {
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x, limit, _CMP_GT_OQ), v);
  }
  static constexpr int kGroup = 2;
  template <int kCount, int kDegree>
  static inline __attribute__((always_inline)) void exp(const R* d, R* e) {
    R n[kCount], r[kCount];
    for (int k = 0; k < kCount; k++) {
      n[k] = _mm512_roundscale_pd(d[k] * set1(kLog2e), _MM_FROUND_TO_NEAREST_INT);
      r[k] = fma(n[k], set1(-kLn2High64), d[k]);
    }
    for (int k = 0; k < kCount; k++) r[k] = fma(n[k], set1(-kLn2Low64), r[k]);
    polynomial_64<R, kCount>(r, e, set1, fma);
    for (int k = 0; k < kCount; k++) e[k] = _mm512_scalef_pd(e[k], n[k]);
  }
  static R min(R a, R b) { return _mm512_min_pd(a, b); }
  static R infinite_unless_above(R x, R limit) {
    return _mm512_mask_mov_pd(set1(__builtin_inf()), _mm512_cmp_pd_mask(x, limit, _CMP_GT_OQ), x);
  }
  using Wide = R;
  static Wide wide_zero() { return _mm512_setzero_pd(); }
  static Wide widen_add(Wide sum, R a) { return sum + a; }
  static double wide_total(Wide sum) { return _mm512_reduce_add_pd(sum); }
  static double largest(R a) { return _mm512_reduce_max_pd(a); }
  static double smallest(R a) { return _mm512_reduce_min_pd(a); }
};

struct S64 {
  using V = V64;
  static constexpr int kDegree = 11;
  using E = double;
  static constexpr E kMinusInfinity = -__builtin_inf();
  static double scalar(E e) { return e; }
  static void load2(const E* p, V::R& a, V::R& b) {
    a = _mm512_loadu_pd(p);
    b = _mm512_loadu_pd(p + 8);
  }
};

struct S32 {
  using V = V32;
  static constexpr int kDegree = 6;
  using E = float;
  static constexpr E kMinusInfinity = -__builtin_inff();
  static double scalar(E e) { return e; }
  static void load2(const E* p, V::R& a, V::R& b) {
    a = _mm512_loadu_ps(p);
    b = _mm512_loadu_ps(p + 16);
  }
};

struct S16 {
  using V = V32;
  static constexpr int kDegree = 5;
  using E = uint16_t;
  static constexpr E kMinusInfinity = 0xfc00;
  static double scalar(E e) { return float_of_half(e); }
  static void load2(const E* p, V::R& a, V::R& b) {
    a = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    b = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16)));
  }
};

struct SB16 {
  using V = V32;
  static constexpr int kDegree = 5;
  using E = uint16_t;
  static constexpr E kMinusInfinity = 0xff80;
  static double scalar(E e) { return float_of_bfloat(e); }
  static void load2(const E* p, V::R& a, V::R& b) {
    const __m512i pairs = _mm512_loadu_si512(p);
    a = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    b = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
};

}  // namespace

const RowKernels kRowKernelsAvx512 = make_row_kernels<S64, S32, S16, SB16>();

}  // namespace surprisal
#endif
