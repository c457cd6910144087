#if defined(__x86_64__)
#include <immintrin.h>

#include "symmetric_spectrum_kernel.hpp"

namespace surprisal {
namespace {

struct Double4 {
  using V = __m256d;
  static constexpr int N = 4;
  static V load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, V v) { _mm256_storeu_pd(p, v); }
  static V set1(double v) { return _mm256_set1_pd(v); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  static __m256i from(int skip) {
    static const int64_t kLanes[8] = {0, 0, 0, 0, -1, -1, -1, -1};
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLanes + 4 - skip));
  }
  static V load_from(const double* p, int skip) { return _mm256_maskload_pd(p, from(skip)); }
  static void store_from(double* p, int skip, V v) { _mm256_maskstore_pd(p, from(skip), v); }
  static V max(V a, V b) { return _mm256_max_pd(a, b); }
  static V select_less(V a, V b, V x, V y) { return _mm256_blendv_pd(y, x, _mm256_cmp_pd(a, b, _CMP_LT_OQ)); }
  static V shift_in(V v, double x) {
    return _mm256_blend_pd(_mm256_permute4x64_pd(v, 0x90), _mm256_set1_pd(x), 1);
  }
  static double last(V v) { return v[3]; }
  static double sum(V v) {
    const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
  }
};

}  // namespace

extern const SpectrumKernels kSpectrumKernelsAvx2 = spectrum_kernels_of<Double4>();

}  // namespace surprisal
#endif
