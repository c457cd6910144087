// Vectors of 32 bytes: AVX2 with FMA. For translation units that are compiled for it.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "exp_polynomials.hpp"

namespace surprisal {
namespace {

struct V32 {
  using T = float;
  using R = __m256;
  static constexpr int N = 8;
  static constexpr float kExpLow = -87.0f;
  static R set1(float v) { return _mm256_set1_ps(v); }
  static R load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, R a) { _mm256_storeu_ps(p, a); }
  static R max(R a, R b) { return _mm256_max_ps(a, b); }
  static R fma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
  static R sqrt(R a) { return _mm256_sqrt_ps(a); }
  static uint32_t above(R a, R b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
  static uint32_t not_below(R a, R b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)); }
  static R choose_above(R x, R limit, R yes, R no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, limit, _CMP_GT_OQ));
  }
  static R keep_above(R x, R limit, R v) { return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_GT_OQ), v); }
  static constexpr int kGroup = 2;
  template <int kCount, int kDegree>
  static inline __attribute__((always_inline)) void exp(const R* d, R* e) {
    R t[kCount], r[kCount];
    for (int k = 0; k < kCount; k++) t[k] = fma(d[k], set1(static_cast<float>(kLog2e)), set1(kRound32));
    for (int k = 0; k < kCount; k++) r[k] = fma(t[k] - set1(kRound32), set1(-kLn2Single32), d[k]);
    polynomial_32<R, kCount, kDegree>(r, e, set1, fma);
    for (int k = 0; k < kCount; k++) {
      const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(t[k]), 23);
      const R scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(e[k]), power));
      e[k] = _mm256_and_ps(scaled, _mm256_cmp_ps(d[k], set1(kExpLow), _CMP_GT_OQ));
    }
  }
  static R min(R a, R b) { return _mm256_min_ps(a, b); }
  static R infinite_unless_above(R x, R limit) {
    return _mm256_blendv_ps(set1(__builtin_inff()), x, _mm256_cmp_ps(x, limit, _CMP_GT_OQ));
  }
  using Wide = __m256d;
  static Wide wide_zero() { return _mm256_setzero_pd(); }
  static Wide widen_add(Wide sum, R a) {
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(a));
    return sum + (low + _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
  }
  static double wide_total(Wide sum) {
    double lane[4];
    _mm256_storeu_pd(lane, sum);
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
  }
  static double largest(R a) {
    float lane[N];
    _mm256_storeu_ps(lane, a);
    float most = lane[0];
    for (int i = 1; i < N; i++) most = lane[i] > most ? lane[i] : most;
    return most;
  }
  static double smallest(R a) {
    float lane[N];
    _mm256_storeu_ps(lane, a);
    float least = lane[0];
    for (int i = 1; i < N; i++) least = lane[i] < least ? lane[i] : least;
    return least;
  }
};

struct V64 {
  using T = double;
  using R = __m256d;
  static constexpr int N = 4;
  static constexpr double kExpLow = -708.0;
  static R set1(double v) { return _mm256_set1_pd(v); }
  static R load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, R a) { _mm256_storeu_pd(p, a); }
  static R max(R a, R b) { return _mm256_max_pd(a, b); }
  static R fma(R a, R b, R c) { return _mm256_fmadd_pd(a, b, c); }
  static R sqrt(R a) { return _mm256_sqrt_pd(a); }
  static uint32_t above(R a, R b) { return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)); }
  static uint32_t not_below(R a, R b) { return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GE_OQ)); }
  static R choose_above(R x, R limit, R yes, R no) {
    return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(x, limit, _CMP_GT_OQ));
  }
  static R keep_above(R x, R limit, R v) { return _mm256_and_pd(_mm256_cmp_pd(x, limit, _CMP_GT_OQ), v); }
  static constexpr int kGroup = 2;
  template <int kCount, int kDegree>
  static inline __attribute__((always_inline)) void exp(const R* d, R* e) {
    R t[kCount], r[kCount];
    for (int k = 0; k < kCount; k++) t[k] = fma(d[k], set1(kLog2e), set1(kRound64));
    for (int k = 0; k < kCount; k++) {
      const R n = t[k] - set1(kRound64);
      r[k] = fma(n, set1(-kLn2Low64), fma(n, set1(-kLn2High64), d[k]));
    }
    polynomial_64<R, kCount>(r, e, set1, fma);
    for (int k = 0; k < kCount; k++) {
      const __m256i power = _mm256_slli_epi64(_mm256_castpd_si256(t[k]), 52);
      const R scaled = _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(e[k]), power));
      e[k] = _mm256_and_pd(scaled, _mm256_cmp_pd(d[k], set1(kExpLow), _CMP_GT_OQ));
    }
  }
  static R min(R a, R b) { return _mm256_min_pd(a, b); }
  static R infinite_unless_above(R x, R limit) {
    return _mm256_blendv_pd(set1(__builtin_inf()), x, _mm256_cmp_pd(x, limit, _CMP_GT_OQ));
  }
  using Wide = R;
  static Wide wide_zero() { return _mm256_setzero_pd(); }
  static Wide widen_add(Wide sum, R a) { return sum + a; }
  static double wide_total(Wide sum) {
    double lane[4];
    _mm256_storeu_pd(lane, sum);
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
  }
  static double largest(R a) {
    double lane[N];
    _mm256_storeu_pd(lane, a);
    double most = lane[0];
    for (int i = 1; i < N; i++) most = lane[i] > most ? lane[i] : most;
    return most;
  }
  static double smallest(R a) {
    double lane[N];
    _mm256_storeu_pd(lane, a);
    double least = lane[0];
    for (int i = 1; i < N; i++) least = lane[i] < least ? lane[i] : least;
    return least;
  }
};

}  // namespace
}  // namespace surprisal
