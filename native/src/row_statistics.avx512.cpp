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
  static R exp(R d) {
    const R n = _mm512_roundscale_ps(d * set1(static_cast<float>(kLog2e)), _MM_FROUND_TO_NEAREST_INT);
    const R r = fma(n, set1(-kLn2Low32), fma(n, set1(-kLn2High32), d));
    R p = fma(r, set1(kExp32[4]), set1(kExp32[3]));
    p = fma(r, p, set1(kExp32[2]));
    p = fma(r, p, set1(kExp32[1]));
    p = fma(r, p, set1(kExp32[0]));
    p = fma(r, p, set1(1.0f));
    p = fma(r, p, set1(1.0f));
    return _mm512_scalef_ps(p, n);
  }
  static __m512d wide(R a) {
    return _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(a)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)));
  }
  static double sum4(R a, R b, R c, R d) { return _mm512_reduce_add_pd((wide(a) + wide(b)) + (wide(c) + wide(d))); }
  static double largest(R a) { return _mm512_reduce_max_ps(a); }
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
  static R exp(R d) {
    const R n = _mm512_roundscale_pd(d * set1(kLog2e), _MM_FROUND_TO_NEAREST_INT);
    const R r = fma(n, set1(-kLn2Low64), fma(n, set1(-kLn2High64), d));
    R p = set1(kExp64[9]);
    for (int k = 8; k >= 0; k--) p = fma(r, p, set1(kExp64[k]));
    p = fma(r, p, set1(1.0));
    p = fma(r, p, set1(1.0));
    return _mm512_scalef_pd(p, n);
  }
  static double sum4(R a, R b, R c, R d) { return _mm512_reduce_add_pd((a + b) + (c + d)); }
  static double largest(R a) { return _mm512_reduce_max_pd(a); }
};

struct S64 {
  using V = V64;
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
