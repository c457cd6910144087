#if defined(__x86_64__)
#include <immintrin.h>

#include "dtypes.hpp"
#include "half.hpp"
#include "narrow.hpp"

namespace surprisal {
namespace {

void widen_half(const uint8_t* source, int64_t count, float* target) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + 2 * i));
    _mm256_storeu_ps(target + i, _mm256_cvtph_ps(halves));
  }
  for (; i < count; i++) {
    uint16_t half;
    memcpy(&half, source + 2 * i, 2);
    target[i] = float_of_half(half);
  }
}

void narrow_half(const float* source, int64_t count, uint8_t* target) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 v = _mm256_loadu_ps(source + i);
    if (_mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)) == 0) {
      const __m128i halves = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(target + 2 * i), halves);
      continue;
    }
    // The instruction keeps the payload of a NaN; every path here gives the plain quiet one.
    for (int k = 0; k < 8; k++) {
      const uint16_t half = half_of_float(source[i + k]);
      memcpy(target + 2 * (i + k), &half, 2);
    }
  }
  for (; i < count; i++) {
    const uint16_t half = half_of_float(source[i]);
    memcpy(target + 2 * i, &half, 2);
  }
}

void widen_bfloat(const uint8_t* source, int64_t count, float* target) {
  for (int64_t i = 0; i < count; i++) {
    uint16_t bits;
    memcpy(&bits, source + 2 * i, 2);
    target[i] = float_of_bfloat(bits);
  }
}

void narrow_bfloat(const float* source, int64_t count, uint8_t* target) {
  for (int64_t i = 0; i < count; i++) {
    const uint16_t bits = bfloat_of_float(source[i]);
    memcpy(target + 2 * i, &bits, 2);
  }
}

}  // namespace

const HalfKernels kHalfKernelsAvx2 = {widen_half, narrow_half, widen_bfloat, narrow_bfloat};

}  // namespace surprisal
#endif
