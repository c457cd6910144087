#if defined(__x86_64__)
#include <immintrin.h>

#include "hadamard_kernel.hpp"

namespace surprisal {
namespace {

struct Float16 {
  using T = float;
  using V = __m512;
  static constexpr int N = 16;
  static constexpr int kDoubles = 8;
  static constexpr int kRadix = 4;
  static V load(const T* p) { return _mm512_loadu_ps(p); }
  static void store(T* p, V v) { _mm512_storeu_ps(p, v); }
  static V negate(V v, __mmask16 lanes) {
    return _mm512_mask_xor_ps(v, lanes, v, _mm512_set1_ps(-0.f));
  }
  // The partner of each entry plus the entry, which is negated where it is the second of its pair.
  template <int kStride>
  static V stage(V v) {
    if constexpr (kStride == 1) return _mm512_permute_ps(v, 0xB1) + negate(v, 0xAAAA);
    else if constexpr (kStride == 2) return _mm512_permute_ps(v, 0x4E) + negate(v, 0xCCCC);
    else if constexpr (kStride == 4) return _mm512_shuffle_f32x4(v, v, 0xB1) + negate(v, 0xF0F0);
    else return _mm512_shuffle_f32x4(v, v, 0x4E) + negate(v, 0xFF00);
  }
};

struct Double8 {
  using T = double;
  using V = __m512d;
  static constexpr int N = 8;
  static constexpr int kDoubles = 8;
  static constexpr int kRadix = 4;
  static V load(const T* p) { return _mm512_loadu_pd(p); }
  static void store(T* p, V v) { _mm512_storeu_pd(p, v); }
  static V negate(V v, __mmask8 lanes) { return _mm512_mask_xor_pd(v, lanes, v, _mm512_set1_pd(-0.)); }
  template <int kStride>
  static V stage(V v) {
    if constexpr (kStride == 1) return _mm512_permute_pd(v, 0x55) + negate(v, 0xAA);
    else if constexpr (kStride == 2) return _mm512_shuffle_f64x2(v, v, 0xB1) + negate(v, 0xCC);
    else return _mm512_shuffle_f64x2(v, v, 0x4E) + negate(v, 0xF0);
  }
};

}  // namespace

extern const HadamardKernelSet kHadamardKernelsAvx512 = {hadamard_kernels<Double8>(), hadamard_kernels<Float16>()};

}  // namespace surprisal
#endif
