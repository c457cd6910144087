// Vectors of 64 bytes: AVX-512. For translation units that are compiled for it.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "exp_polynomials.hpp"

namespace surprisal {
namespace {

struct V32 {
  using T = float;
  using R = __m512;
  static constexpr int N = 16;
  static constexpr float kExpLow = -200.0f;
  static R set1(float v) { return _mm512_set1_ps(v); }
  static R load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, R a) { _mm512_storeu_ps(p, a); }
  static R max(R a, R b) { return _mm512_max_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static R sqrt(R a) { return _mm512_sqrt_ps(a); }
  static uint32_t above(R a, R b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static uint32_t not_below(R a, R b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
  static R choose_above(R x, R limit, R yes, R no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), yes);
  }
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
  static void store(double* p, R a) { _mm512_storeu_pd(p, a); }
  static R max(R a, R b) { return _mm512_max_pd(a, b); }
  static R fma(R a, R b, R c) { return _mm512_fmadd_pd(a, b, c); }
  static R sqrt(R a) { return _mm512_sqrt_pd(a); }
  static uint32_t above(R a, R b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
  static uint32_t not_below(R a, R b) { return _mm512_cmp_pd_mask(a, b, _CMP_GE_OQ); }
  static R choose_above(R x, R limit, R yes, R no) {
    return _mm512_mask_mov_pd(no, _mm512_cmp_pd_mask(x, limit, _CMP_GT_OQ), yes);
  }
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

}  // namespace
}  // namespace surprisal
