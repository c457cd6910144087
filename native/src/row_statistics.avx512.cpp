#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#include "half.hpp"
#include "row_statistics_kernel.hpp"
#include "vectors_avx512.hpp"

namespace surprisal {
namespace {

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
