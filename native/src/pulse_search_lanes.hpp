// Vectors of floats and tiles of groups for the pulse search, see pulse_search_kernel.hpp. A translation unit sets kLanes,
// the floats of a vector, and kUnits, the vectors of a row, before it includes this.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "pulse_search.hpp"

namespace surprisal {
namespace {

constexpr int kBytes = 4 * kLanes;
typedef float F __attribute__((vector_size(kBytes)));
typedef int32_t I __attribute__((vector_size(kBytes)));
typedef float HalfF __attribute__((vector_size(kBytes / 2)));
typedef int32_t HalfI __attribute__((vector_size(kBytes / 2)));
typedef double D __attribute__((vector_size(kBytes)));
typedef int64_t Long __attribute__((vector_size(kBytes)));

constexpr int kTile = kUnits * kLanes;
static_assert(kTile <= kMostSearchLanes, "tiles are larger than the callers expect");

// One coordinate of all groups of a tile.
struct alignas(kBytes) Row {
  F at[kUnits];
};

constexpr int kIterations = 8;
constexpr float kAngleMargin = 1e-5f;
constexpr double kRangeMargin = 1e-4;
constexpr float kLeastImportance = 0x1p-20f;

static inline F splat(float value) { return F{} + value; }
static inline F larger(F a, F b) { return a > b ? a : b; }
static inline F smaller(F a, F b) { return a < b ? a : b; }

// Correctly rounded on every path.
static inline F square_root(F v) {
#if defined(__AVX512F__)
  return (F)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (F)_mm256_sqrt_ps((__m256)v);
#else
  F root;
  for (int l = 0; l < kLanes; l++) root[l] = __builtin_sqrtf(v[l]);
  return root;
#endif
}

// Of numbers in [0, 2^31).
static inline F ceiling(F v) {
  const F whole = __builtin_convertvector(__builtin_convertvector(v, I), F);
  return whole < v ? whole + 1.0f : whole;
}

static inline bool any(I mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_testz_si256((__m256i)mask, (__m256i)mask) == 0;
#else
  int64_t words[kBytes / 8];
  memcpy(words, &mask, kBytes);
  int64_t all = 0;
  for (int64_t word : words) all |= word;
  return all != 0;
#endif
}

// Arrays [D] of a tile.
struct Tile {
  int length;
  float pulses;
  Row* u;
  Row* y;
  Row* sizes;   // |x|
  Row* scaled;  // alpha u
  Row* other;   // a second y
  Row* h;       // weights, h u and caps where the search has them
  Row* hu;
  Row* caps;
  Row l1, energy, inverse_sum, least_weight;
  Row xy, yy;
};

template <bool kWeighted>
static inline F weighted_u(const Tile& t, int j, int k) {
  if constexpr (kWeighted) return t.hu[j].at[k];
  return t.u[j].at[k];
}

template <bool kWeighted>
static inline F times_weight(const Tile& t, int j, int k, F value) {
  if constexpr (kWeighted) return t.h[j].at[k] * value;
  return value;
}

template <bool kWeighted>
static void products(Tile& t, const Row* y) {
  Row xy{}, yy{};
  for (int j = 0; j < t.length; j++) {
    for (int k = 0; k < kUnits; k++) {
      const F v = y[j].at[k];
      xy.at[k] = xy.at[k] + weighted_u<kWeighted>(t, j, k) * v;
      yy.at[k] = yy.at[k] + times_weight<kWeighted>(t, j, k, v) * v;
    }
  }
  t.xy = xy;
  t.yy = yy;
}

// Whether (xy, yy) has a larger cosine than (best_xy, best_yy).
static inline I exceeds(F xy, F yy, F best_xy, F best_yy) { return (xy * xy) * best_yy > (best_xy * best_xy) * yy; }

}  // namespace
}  // namespace surprisal
