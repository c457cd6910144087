// Vectors of 16 bytes through the compiler's vector extension: SSE2 on x64, NEON on arm64.
#pragma once
#include <stdint.h>
#include <string.h>

#include "exp_polynomials.hpp"

namespace surprisal {
namespace {

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef double D2 __attribute__((vector_size(16)));
typedef int64_t L2 __attribute__((vector_size(16)));

#if defined(__aarch64__)
static inline F4 fused(F4 a, F4 b, F4 c) {
  F4 out;
  for (int i = 0; i < 4; i++) out[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return out;
}
static inline D2 fused(D2 a, D2 b, D2 c) {
  D2 out;
  for (int i = 0; i < 2; i++) out[i] = __builtin_fma(a[i], b[i], c[i]);
  return out;
}
#else
static inline F4 fused(F4 a, F4 b, F4 c) { return a * b + c; }
static inline D2 fused(D2 a, D2 b, D2 c) { return a * b + c; }
#endif

static inline F4 where(I4 mask, F4 yes, F4 no) { return (F4)(((I4)yes & mask) | ((I4)no & ~mask)); }
static inline D2 where(L2 mask, D2 yes, D2 no) { return (D2)(((L2)yes & mask) | ((L2)no & ~mask)); }

struct V32 {
  using T = float;
  using R = F4;
  static constexpr int N = 4;
  static constexpr float kExpLow = -87.0f;
  static R set1(float v) { return R{v, v, v, v}; }
  static R load(const float* p) {
    R v;
    memcpy(&v, p, 16);
    return v;
  }
  static void store(float* p, R a) { memcpy(p, &a, 16); }
  static R max(R a, R b) { return where((I4)(a > b), a, b); }
  static R fma(R a, R b, R c) { return fused(a, b, c); }
  static R sqrt(R a) { return R{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])}; }
  static uint32_t bits(I4 m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
  static uint32_t above(R a, R b) { return bits((I4)(a > b)); }
  static uint32_t not_below(R a, R b) { return bits((I4)(a >= b)); }
  static R choose_above(R x, R limit, R yes, R no) { return where((I4)(x > limit), yes, no); }
  static R keep_above(R x, R limit, R v) { return (R)((I4)v & (I4)(x > limit)); }
  static constexpr int kGroup = 2;
  template <int kCount, int kDegree>
  static inline __attribute__((always_inline)) void exp(const R* d, R* e) {
    R t[kCount], r[kCount];
    for (int k = 0; k < kCount; k++) t[k] = fma(d[k], set1(static_cast<float>(kLog2e)), set1(kRound32));
    for (int k = 0; k < kCount; k++) {
      const R n = t[k] - set1(kRound32);
      r[k] = fma(n, set1(-kLn2Low32), fma(n, set1(-kLn2High32), d[k]));
    }
    polynomial_32<R, kCount, kDegree>(r, e, set1, fma);
    for (int k = 0; k < kCount; k++) {
      e[k] = (R)(((I4)e[k] + ((I4)t[k] << 23)) & (I4)(d[k] > set1(kExpLow)));
    }
  }
  static R min(R a, R b) { return where((I4)(a < b), a, b); }
  static R infinite_unless_above(R x, R limit) { return where((I4)(x > limit), x, set1(__builtin_inff())); }
  struct Wide {
    D2 low, high;
  };
  static Wide wide_zero() { return Wide{D2{0, 0}, D2{0, 0}}; }
  static Wide widen_add(Wide sum, R a) {
    return Wide{sum.low + D2{a[0], a[1]}, sum.high + D2{a[2], a[3]}};
  }
  static double wide_total(Wide sum) { return (sum.low[0] + sum.low[1]) + (sum.high[0] + sum.high[1]); }
  static double largest(R a) {
    float most = a[0];
    for (int i = 1; i < N; i++) most = a[i] > most ? a[i] : most;
    return most;
  }
  static double smallest(R a) {
    float least = a[0];
    for (int i = 1; i < N; i++) least = a[i] < least ? a[i] : least;
    return least;
  }
};

struct V64 {
  using T = double;
  using R = D2;
  static constexpr int N = 2;
  static constexpr double kExpLow = -708.0;
  static R set1(double v) { return R{v, v}; }
  static R load(const double* p) {
    R v;
    memcpy(&v, p, 16);
    return v;
  }
  static void store(double* p, R a) { memcpy(p, &a, 16); }
  static R max(R a, R b) { return where((L2)(a > b), a, b); }
  static R fma(R a, R b, R c) { return fused(a, b, c); }
  static R sqrt(R a) { return R{__builtin_sqrt(a[0]), __builtin_sqrt(a[1])}; }
  static uint32_t bits(L2 m) { return static_cast<uint32_t>((m[0] & 1) | (m[1] & 2)); }
  static uint32_t above(R a, R b) { return bits((L2)(a > b)); }
  static uint32_t not_below(R a, R b) { return bits((L2)(a >= b)); }
  static R choose_above(R x, R limit, R yes, R no) { return where((L2)(x > limit), yes, no); }
  static R keep_above(R x, R limit, R v) { return (R)((L2)v & (L2)(x > limit)); }
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
      e[k] = (R)(((L2)e[k] + ((L2)t[k] << 52)) & (L2)(d[k] > set1(kExpLow)));
    }
  }
  static R min(R a, R b) { return where((L2)(a < b), a, b); }
  static R infinite_unless_above(R x, R limit) { return where((L2)(x > limit), x, set1(__builtin_inf())); }
  using Wide = R;
  static Wide wide_zero() { return R{0, 0}; }
  static Wide widen_add(Wide sum, R a) { return sum + a; }
  static double wide_total(Wide sum) { return sum[0] + sum[1]; }
  static double largest(R a) { return a[0] > a[1] ? a[0] : a[1]; }
  static double smallest(R a) { return a[0] < a[1] ? a[0] : a[1]; }
};

}  // namespace
}  // namespace surprisal
