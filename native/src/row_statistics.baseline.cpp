// Vectors of 16 bytes through the compiler's vector extension: SSE2 on x64, NEON on arm64.
#include <stdint.h>
#include <string.h>

#include "exp_polynomials.hpp"
#include "half.hpp"
#include "row_statistics_kernel.hpp"

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
  static R max(R a, R b) { return where((I4)(a > b), a, b); }
  static R fma(R a, R b, R c) { return fused(a, b, c); }
  static R sqrt(R a) { return R{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])}; }
  static uint32_t bits(I4 m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
  static uint32_t above(R a, R b) { return bits((I4)(a > b)); }
  static uint32_t not_below(R a, R b) { return bits((I4)(a >= b)); }
  static R keep_above(R x, R limit, R v) { return (R)((I4)v & (I4)(x > limit)); }
  static R exp(R d) {
    const R t = fma(d, set1(static_cast<float>(kLog2e)), set1(kRound32));
    const R n = t - set1(kRound32);
    const R r = fma(n, set1(-kLn2Low32), fma(n, set1(-kLn2High32), d));
    R p = fma(r, set1(kExp32[4]), set1(kExp32[3]));
    p = fma(r, p, set1(kExp32[2]));
    p = fma(r, p, set1(kExp32[1]));
    p = fma(r, p, set1(kExp32[0]));
    p = fma(r, p, set1(1.0f));
    p = fma(r, p, set1(1.0f));
    return (R)(((I4)p + ((I4)t << 23)) & (I4)(d > set1(kExpLow)));
  }
  static double sum4(R a, R b, R c, R d) {
    double lane[N];
    for (int i = 0; i < N; i++) {
      lane[i] = (static_cast<double>(a[i]) + static_cast<double>(b[i])) +
                (static_cast<double>(c[i]) + static_cast<double>(d[i]));
    }
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
  }
  static double largest(R a) {
    float most = a[0];
    for (int i = 1; i < N; i++) most = a[i] > most ? a[i] : most;
    return most;
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
  static R max(R a, R b) { return where((L2)(a > b), a, b); }
  static R fma(R a, R b, R c) { return fused(a, b, c); }
  static R sqrt(R a) { return R{__builtin_sqrt(a[0]), __builtin_sqrt(a[1])}; }
  static uint32_t bits(L2 m) { return static_cast<uint32_t>((m[0] & 1) | (m[1] & 2)); }
  static uint32_t above(R a, R b) { return bits((L2)(a > b)); }
  static uint32_t not_below(R a, R b) { return bits((L2)(a >= b)); }
  static R keep_above(R x, R limit, R v) { return (R)((L2)v & (L2)(x > limit)); }
  static R exp(R d) {
    const R t = fma(d, set1(kLog2e), set1(kRound64));
    const R n = t - set1(kRound64);
    const R r = fma(n, set1(-kLn2Low64), fma(n, set1(-kLn2High64), d));
    R p = set1(kExp64[9]);
    for (int k = 8; k >= 0; k--) p = fma(r, p, set1(kExp64[k]));
    p = fma(r, p, set1(1.0));
    p = fma(r, p, set1(1.0));
    return (R)(((L2)p + ((L2)t << 52)) & (L2)(d > set1(kExpLow)));
  }
  static double sum4(R a, R b, R c, R d) {
    const R sum = (a + b) + (c + d);
    return sum[0] + sum[1];
  }
  static double largest(R a) { return a[0] > a[1] ? a[0] : a[1]; }
};

struct S64 {
  using V = V64;
  using E = double;
  static constexpr E kMinusInfinity = -__builtin_inf();
  static double scalar(E e) { return e; }
  static void load2(const E* p, V::R& a, V::R& b) {
    a = V::load(p);
    b = V::load(p + 2);
  }
};

struct S32 {
  using V = V32;
  using E = float;
  static constexpr E kMinusInfinity = -__builtin_inff();
  static double scalar(E e) { return e; }
  static void load2(const E* p, V::R& a, V::R& b) {
    memcpy(&a, p, 16);
    memcpy(&b, p + 4, 16);
  }
};

struct S16 {
  using V = V32;
  using E = uint16_t;
  static constexpr E kMinusInfinity = 0xfc00;
  static double scalar(E e) { return float_of_half(e); }
  static void load2(const E* p, V::R& a, V::R& b) {
    float wide[8];
    for (int i = 0; i < 8; i++) wide[i] = float_of_half(p[i]);
    memcpy(&a, wide, 16);
    memcpy(&b, wide + 4, 16);
  }
};

struct SB16 {
  using V = V32;
  using E = uint16_t;
  static constexpr E kMinusInfinity = 0xff80;
  static double scalar(E e) { return float_of_bfloat(e); }
  static void load2(const E* p, V::R& a, V::R& b) {
    I4 pairs;
    memcpy(&pairs, p, 16);
    const int32_t high = static_cast<int32_t>(0xffff0000u);
    a = (F4)(pairs << 16);
    b = (F4)(pairs & I4{high, high, high, high});
  }
};

}  // namespace

const RowKernels kRowKernelsBaseline = make_row_kernels<S64, S32, S16, SB16>();

}  // namespace surprisal
