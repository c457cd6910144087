#if defined(__x86_64__)
#include <immintrin.h>

#include "symmetric_spectrum_kernel.hpp"

namespace surprisal {
namespace {

struct Double8 {
  using V = __m512d;
  static constexpr int N = 8;
  static V load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, V v) { _mm512_storeu_pd(p, v); }
  static V set1(double v) { return _mm512_set1_pd(v); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  static V load_from(const double* p, int skip) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(0xff << skip), p);
  }
  static void store_from(double* p, int skip, V v) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(0xff << skip), v);
  }
  static V max(V a, V b) { return _mm512_max_pd(a, b); }
  static V select_less(V a, V b, V x, V y) {
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_LT_OQ), y, x);
  }
  static V shift_in(V v, double x) {
    return _mm512_castsi512_pd(
        _mm512_alignr_epi64(_mm512_castpd_si512(v), _mm512_castpd_si512(_mm512_set1_pd(x)), 7));
  }
  static double last(V v) { return v[7]; }
  static double sum(V v) {
    const __m256d half = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
    const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
  }
};

}  // namespace

extern const SpectrumKernels kSpectrumKernelsAvx512 = spectrum_kernels_of<Double8>();

}  // namespace surprisal
#endif
