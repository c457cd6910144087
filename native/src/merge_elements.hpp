// Elements of stored tensors in groups of eight lanes, whatever the instruction set: F64, F32, F16 and BF16 bytes (any
// alignment) into floats or doubles, exactly, and doubles back with one rounding. Eight lanes everywhere keep the order
// of sums. Included by one translation unit for each instruction set (.baseline.cpp, .avx2.cpp, .avx512.cpp); the flags
// of the unit choose the lanes. Arithmetic is rounded operation by operation, as TypeScript does it; the same in
// TypeScript: merge-elements-reference.ts.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "dtypes.hpp"
#include "half.hpp"
#include "narrow.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace surprisal {
namespace {

constexpr int kMergeLanes = 8;

// F8: eight floats; D8: eight doubles; a mask has bit i for lane i. Comparisons with NaN are false.
#if defined(__AVX512F__)
using F8 = __m256;
using D8 = __m512d;

static inline D8 broadcast(double v) { return _mm512_set1_pd(v); }
static inline D8 load_doubles(const double* at) { return _mm512_loadu_pd(at); }
static inline void store_doubles(double* at, D8 a) { _mm512_storeu_pd(at, a); }
static inline D8 doubles_of(F8 a) { return _mm512_cvtps_pd(a); }
static inline F8 floats_of(D8 a) { return _mm512_cvtpd_ps(a); }
static inline D8 largest(D8 a, D8 b) { return _mm512_max_pd(a, b); }
static inline D8 smallest(D8 a, D8 b) { return _mm512_min_pd(a, b); }
static inline D8 magnitude(D8 a) { return _mm512_abs_pd(a); }
static inline uint32_t above(D8 a, D8 b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
static inline uint32_t not_below(D8 a, D8 b) { return _mm512_cmp_pd_mask(a, b, _CMP_GE_OQ); }
static inline uint32_t equal(D8 a, D8 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
static inline uint32_t unordered(D8 a) { return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q); }
static inline D8 choose(uint32_t mask, D8 yes, D8 no) {
  return _mm512_mask_mov_pd(no, static_cast<__mmask8>(mask), yes);
}
#elif defined(__AVX2__)
using F8 = __m256;
struct D8 {
  __m256d low, high;
};

static inline D8 operator+(D8 a, D8 b) { return {a.low + b.low, a.high + b.high}; }
static inline D8 operator-(D8 a, D8 b) { return {a.low - b.low, a.high - b.high}; }
static inline D8 operator*(D8 a, D8 b) { return {a.low * b.low, a.high * b.high}; }
static inline D8 operator/(D8 a, D8 b) { return {a.low / b.low, a.high / b.high}; }
static inline D8 broadcast(double v) { return {_mm256_set1_pd(v), _mm256_set1_pd(v)}; }
static inline D8 load_doubles(const double* at) { return {_mm256_loadu_pd(at), _mm256_loadu_pd(at + 4)}; }
static inline void store_doubles(double* at, D8 a) {
  _mm256_storeu_pd(at, a.low);
  _mm256_storeu_pd(at + 4, a.high);
}
static inline D8 doubles_of(F8 a) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))};
}
static inline F8 floats_of(D8 a) { return _mm256_set_m128(_mm256_cvtpd_ps(a.high), _mm256_cvtpd_ps(a.low)); }
static inline D8 largest(D8 a, D8 b) { return {_mm256_max_pd(a.low, b.low), _mm256_max_pd(a.high, b.high)}; }
static inline D8 smallest(D8 a, D8 b) { return {_mm256_min_pd(a.low, b.low), _mm256_min_pd(a.high, b.high)}; }
static inline D8 magnitude(D8 a) {
  const __m256d sign = _mm256_set1_pd(-0.0);
  return {_mm256_andnot_pd(sign, a.low), _mm256_andnot_pd(sign, a.high)};
}
template <int kPredicate>
static inline uint32_t compare(D8 a, D8 b) {
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a.low, b.low, kPredicate)) |
                               _mm256_movemask_pd(_mm256_cmp_pd(a.high, b.high, kPredicate)) << 4);
}
static inline uint32_t above(D8 a, D8 b) { return compare<_CMP_GT_OQ>(a, b); }
static inline uint32_t not_below(D8 a, D8 b) { return compare<_CMP_GE_OQ>(a, b); }
static inline uint32_t equal(D8 a, D8 b) { return compare<_CMP_EQ_OQ>(a, b); }
static inline uint32_t unordered(D8 a) { return compare<_CMP_UNORD_Q>(a, a); }
static inline __m256d lanes_of_mask(uint32_t mask) {
  const __m256i bits = _mm256_set_epi64x(8, 4, 2, 1);
  const __m256i set = _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(mask)), bits);
  return _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, bits));
}
static inline D8 choose(uint32_t mask, D8 yes, D8 no) {
  return {_mm256_blendv_pd(no.low, yes.low, lanes_of_mask(mask)),
          _mm256_blendv_pd(no.high, yes.high, lanes_of_mask(mask >> 4))};
}
#else
struct F8 {
  float lane[8];
};
struct D8 {
  double lane[8];
};

#define SURPRISAL_LANES(type, expression) \
  type result;                            \
  for (int i = 0; i < 8; i++) result.lane[i] = (expression); \
  return result
static inline F8 operator+(F8 a, F8 b) { SURPRISAL_LANES(F8, a.lane[i] + b.lane[i]); }
static inline F8 operator-(F8 a, F8 b) { SURPRISAL_LANES(F8, a.lane[i] - b.lane[i]); }
static inline F8 operator*(F8 a, F8 b) { SURPRISAL_LANES(F8, a.lane[i] * b.lane[i]); }
static inline D8 operator+(D8 a, D8 b) { SURPRISAL_LANES(D8, a.lane[i] + b.lane[i]); }
static inline D8 operator-(D8 a, D8 b) { SURPRISAL_LANES(D8, a.lane[i] - b.lane[i]); }
static inline D8 operator*(D8 a, D8 b) { SURPRISAL_LANES(D8, a.lane[i] * b.lane[i]); }
static inline D8 operator/(D8 a, D8 b) { SURPRISAL_LANES(D8, a.lane[i] / b.lane[i]); }
static inline D8 broadcast(double v) { SURPRISAL_LANES(D8, v); }
static inline D8 load_doubles(const double* at) { SURPRISAL_LANES(D8, at[i]); }
static inline void store_doubles(double* at, D8 a) { memcpy(at, a.lane, 64); }
static inline D8 doubles_of(F8 a) { SURPRISAL_LANES(D8, static_cast<double>(a.lane[i])); }
static inline F8 floats_of(D8 a) { SURPRISAL_LANES(F8, static_cast<float>(a.lane[i])); }
static inline D8 largest(D8 a, D8 b) { SURPRISAL_LANES(D8, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline D8 smallest(D8 a, D8 b) { SURPRISAL_LANES(D8, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline D8 magnitude(D8 a) { SURPRISAL_LANES(D8, fabs(a.lane[i])); }
static inline D8 choose(uint32_t mask, D8 yes, D8 no) {
  SURPRISAL_LANES(D8, (mask >> i & 1u) != 0 ? yes.lane[i] : no.lane[i]);
}
#undef SURPRISAL_LANES
#define SURPRISAL_MASK(condition) \
  uint32_t mask = 0;              \
  for (int i = 0; i < 8; i++) mask |= static_cast<uint32_t>(condition) << i; \
  return mask
static inline uint32_t above(D8 a, D8 b) { SURPRISAL_MASK(a.lane[i] > b.lane[i]); }
static inline uint32_t not_below(D8 a, D8 b) { SURPRISAL_MASK(a.lane[i] >= b.lane[i]); }
static inline uint32_t equal(D8 a, D8 b) { SURPRISAL_MASK(a.lane[i] == b.lane[i]); }
static inline uint32_t unordered(D8 a) { SURPRISAL_MASK(a.lane[i] != a.lane[i]); }
#undef SURPRISAL_MASK
#endif

// `largest` and `smallest` give b where either is NaN.

template <DType kType>
constexpr int64_t element_bytes() {
  return kType == DType::F64 ? 8 : kType == DType::F32 ? 4 : 2;
}

static inline int64_t dtype_width(DType type) { return type == DType::F64 ? 8 : type == DType::F32 ? 4 : 2; }

// Eight elements; `kType` is F32, F16 or BF16.
template <DType kType>
static inline F8 load_float_lanes(const uint8_t* at) {
  static_assert(kType != DType::F64, "F64 has no float lanes");
#if defined(__AVX2__)
  if (kType == DType::F32) return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  if (kType == DType::F16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
#else
  F8 result;
  if (kType == DType::F32) {
    memcpy(result.lane, at, 32);
    return result;
  }
  uint16_t half[8];
  memcpy(half, at, 16);
  for (int i = 0; i < 8; i++) {
    result.lane[i] = kType == DType::F16 ? float_of_half(half[i]) : float_of_bfloat(half[i]);
  }
  return result;
#endif
}

template <DType kType>
static inline D8 load_double_lanes(const uint8_t* at) {
  if constexpr (kType == DType::F64) {
    double lanes[8];
    memcpy(lanes, at, 64);
    return load_doubles(lanes);
  } else {
    return doubles_of(load_float_lanes<kType>(at));
  }
}

// Eight doubles rounded to f32 and from there to `kType`, each to nearest, ties to even; F64 is not rounded. Every NaN is
// stored as the positive quiet one: its sign and payload would depend on the order of operands.
template <DType kType>
static inline void store_double_lanes(uint8_t* at, D8 values) {
  if constexpr (kType == DType::F64) {
    const uint32_t nan = unordered(values);
    if (__builtin_expect(nan != 0, 0)) values = choose(nan, broadcast(__builtin_nan("")), values);
    double lanes[8];
    store_doubles(lanes, values);
    memcpy(at, lanes, 64);
  } else {
    F8 single = floats_of(values);
#if defined(__AVX2__)
    single = _mm256_blendv_ps(single, _mm256_set1_ps(__builtin_nanf("")), _mm256_cmp_ps(single, single, _CMP_UNORD_Q));
    if constexpr (kType == DType::F32) {
      _mm256_storeu_ps(reinterpret_cast<float*>(at), single);
    } else if constexpr (kType == DType::F16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_cvtps_ph(single, _MM_FROUND_TO_NEAREST_INT));
    } else {
      const __m256i bits = _mm256_castps_si256(single);
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
      const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
      const __m256i upper = _mm256_srli_epi32(up, 16);
      const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), packed);
    }
#else
    for (int i = 0; i < 8; i++) {
      const float nan = __builtin_nanf("");
      if (single.lane[i] != single.lane[i]) single.lane[i] = nan;
    }
    if constexpr (kType == DType::F32) {
      memcpy(at, single.lane, 32);
    } else {
      uint16_t half[8];
      for (int i = 0; i < 8; i++) {
        half[i] = kType == DType::F16 ? half_of_float(single.lane[i]) : bfloat_of_float(single.lane[i]);
      }
      memcpy(at, half, 16);
    }
#endif
  }
}

// The first `count` < 8 elements; the other lanes are zero.
template <DType kType>
static inline D8 load_double_lanes(const uint8_t* at, int64_t count) {
  uint8_t padded[64] = {};
  memcpy(padded, at, static_cast<size_t>(count * element_bytes<kType>()));
  return load_double_lanes<kType>(padded);
}

template <DType kType>
static inline void store_double_lanes(uint8_t* at, D8 values, int64_t count) {
  uint8_t padded[64];
  store_double_lanes<kType>(padded, values);
  memcpy(at, padded, static_cast<size_t>(count * element_bytes<kType>()));
}

template <DType kType>
static inline void load_block_of(const uint8_t* bytes, int64_t count, double* target) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) store_doubles(target + i, load_double_lanes<kType>(bytes + i * element_bytes<kType>()));
  if (i == count) return;
  double rest[8];
  store_doubles(rest, load_double_lanes<kType>(bytes + i * element_bytes<kType>(), count - i));
  memcpy(target + i, rest, sizeof(double) * static_cast<size_t>(count - i));
}

template <DType kType>
static inline void load_block_of(const uint8_t* bytes, int64_t count, float* target) {
  if constexpr (kType == DType::F64) {
    for (int64_t i = 0; i < count; i++) {
      double value;
      memcpy(&value, bytes + 8 * i, 8);
      target[i] = static_cast<float>(value);
    }
  } else {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
      const F8 lanes = load_float_lanes<kType>(bytes + i * element_bytes<kType>());
      memcpy(target + i, &lanes, 32);
    }
    if (i == count) return;
    uint8_t padded[32] = {};
    memcpy(padded, bytes + i * element_bytes<kType>(), static_cast<size_t>((count - i) * element_bytes<kType>()));
    const F8 lanes = load_float_lanes<kType>(padded);
    memcpy(target + i, &lanes, sizeof(float) * static_cast<size_t>(count - i));
  }
}

template <DType kType>
static inline void store_block_of(const double* values, int64_t count, uint8_t* bytes) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) store_double_lanes<kType>(bytes + i * element_bytes<kType>(), load_doubles(values + i));
  if (i == count) return;
  double rest[8] = {};
  memcpy(rest, values + i, sizeof(double) * static_cast<size_t>(count - i));
  store_double_lanes<kType>(bytes + i * element_bytes<kType>(), load_doubles(rest), count - i);
}

// Elements [from, from + count) of a stored tensor into `target`, exactly (F64 into floats is rounded).
template <class T>
static inline void load_block(const uint8_t* bytes, DType type, int64_t from, int64_t count, T* target) {
  switch (type) {
    case DType::F64:
      return load_block_of<DType::F64>(bytes + 8 * from, count, target);
    case DType::F32:
      return load_block_of<DType::F32>(bytes + 4 * from, count, target);
    case DType::F16:
      return load_block_of<DType::F16>(bytes + 2 * from, count, target);
    default:
      return load_block_of<DType::BF16>(bytes + 2 * from, count, target);
  }
}

// `values` into elements [from, from + count), rounded as by store_double_lanes.
static inline void store_block(const double* values, DType type, int64_t from, int64_t count, uint8_t* bytes) {
  switch (type) {
    case DType::F64:
      return store_block_of<DType::F64>(values, count, bytes + 8 * from);
    case DType::F32:
      return store_block_of<DType::F32>(values, count, bytes + 4 * from);
    case DType::F16:
      return store_block_of<DType::F16>(values, count, bytes + 2 * from);
    default:
      return store_block_of<DType::BF16>(values, count, bytes + 2 * from);
  }
}

}  // namespace
}  // namespace surprisal
