#if defined(__x86_64__)
#include <immintrin.h>

#include "hadamard_kernel.hpp"

namespace surprisal {
namespace {

struct Float8 {
  using T = float;
  using V = __m256;
  static constexpr int N = 8;
  static constexpr int kDoubles = 4;
  static constexpr int kRadix = 3;
  static V load(const T* p) { return _mm256_loadu_ps(p); }
  static void store(T* p, V v) { _mm256_storeu_ps(p, v); }
  // The partner of each entry plus the entry, which is negated where it is the second of its pair.
  template <int kStride>
  static V stage(V v) {
    if constexpr (kStride == 1) {
      return _mm256_permute_ps(v, 0xB1) + _mm256_xor_ps(v, _mm256_setr_ps(0, -0.f, 0, -0.f, 0, -0.f, 0, -0.f));
    } else if constexpr (kStride == 2) {
      return _mm256_permute_ps(v, 0x4E) + _mm256_xor_ps(v, _mm256_setr_ps(0, 0, -0.f, -0.f, 0, 0, -0.f, -0.f));
    } else {
      const V sign = _mm256_setr_ps(0, 0, 0, 0, -0.f, -0.f, -0.f, -0.f);
      return _mm256_permute2f128_ps(v, v, 1) + _mm256_xor_ps(v, sign);
    }
  }
};

struct Double4 {
  using T = double;
  using V = __m256d;
  static constexpr int N = 4;
  static constexpr int kDoubles = 4;
  static constexpr int kRadix = 3;
  static V load(const T* p) { return _mm256_loadu_pd(p); }
  static void store(T* p, V v) { _mm256_storeu_pd(p, v); }
  template <int kStride>
  static V stage(V v) {
    if constexpr (kStride == 1) {
      return _mm256_permute_pd(v, 0x5) + _mm256_xor_pd(v, _mm256_setr_pd(0, -0., 0, -0.));
    } else {
      return _mm256_permute2f128_pd(v, v, 1) + _mm256_xor_pd(v, _mm256_setr_pd(0, 0, -0., -0.));
    }
  }
};

}  // namespace

extern const HadamardKernelSet kHadamardKernelsAvx2 = {hadamard_kernels<Double4>(), hadamard_kernels<Float8>()};

}  // namespace surprisal
#endif
