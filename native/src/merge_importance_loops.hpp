// The loops over lanes of merge_elements.hpp; included by one translation unit for each instruction set.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "merge_elements.hpp"
#include "merge_importance.hpp"

namespace surprisal {
namespace {

constexpr double kLn2High = 0.6931471803691238;
constexpr double kLn2Low = 1.9082149292705877e-10;
constexpr double kLog2e = 1.4426950408889634;
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding and taking it away rounds to an integer
constexpr double kExpLeast = -708;
constexpr int kExpDegree = 13;
constexpr int kLogTerms = 11;
constexpr double kDivergenceFloor = 1e-8;
constexpr uint64_t kOneExponent = 0x3ff0000000000000u;
// Mantissas begin at the square root of one half.
constexpr uint64_t kLogCentre = 0x3fe6a09e00000000u;
constexpr double kTwo52 = 4503599627370496.0;

// Integers in the bits of doubles. `power_of_two` takes n + kRound and gives 2^n; `split` takes x > 0 to its exponent k as
// a double and its mantissa.
#if defined(__AVX512F__)
static inline D8 power_of_two(D8 shifted) {
  const __m512i n = _mm512_slli_epi64(_mm512_castpd_si512(shifted), 52);
  return _mm512_castsi512_pd(_mm512_add_epi64(n, _mm512_set1_epi64(static_cast<long long>(kOneExponent))));
}
static inline D8 split(D8 x, D8* mantissa) {
  const __m512i bits = _mm512_castpd_si512(x);
  const __m512i one = _mm512_set1_epi64(static_cast<long long>(kOneExponent));
  const __m512i moved = _mm512_add_epi64(bits, _mm512_set1_epi64(static_cast<long long>(kOneExponent - kLogCentre)));
  const __m512i biased = _mm512_srli_epi64(moved, 52);
  *mantissa = _mm512_castsi512_pd(_mm512_add_epi64(_mm512_sub_epi64(bits, _mm512_slli_epi64(biased, 52)), one));
  const __m512i big = _mm512_or_si512(biased, _mm512_castpd_si512(_mm512_set1_pd(kTwo52)));
  return _mm512_castsi512_pd(big) - broadcast(kTwo52 + 1023);
}
#elif defined(__AVX2__)
static inline __m256d power_of_two(__m256d shifted) {
  const __m256i n = _mm256_slli_epi64(_mm256_castpd_si256(shifted), 52);
  return _mm256_castsi256_pd(_mm256_add_epi64(n, _mm256_set1_epi64x(static_cast<long long>(kOneExponent))));
}
static inline D8 power_of_two(D8 shifted) { return {power_of_two(shifted.low), power_of_two(shifted.high)}; }
static inline __m256d split(__m256d x, __m256d* mantissa) {
  const __m256i bits = _mm256_castpd_si256(x);
  const __m256i one = _mm256_set1_epi64x(static_cast<long long>(kOneExponent));
  const __m256i moved = _mm256_add_epi64(bits, _mm256_set1_epi64x(static_cast<long long>(kOneExponent - kLogCentre)));
  const __m256i biased = _mm256_srli_epi64(moved, 52);
  *mantissa = _mm256_castsi256_pd(_mm256_add_epi64(_mm256_sub_epi64(bits, _mm256_slli_epi64(biased, 52)), one));
  const __m256i big = _mm256_or_si256(biased, _mm256_castpd_si256(_mm256_set1_pd(kTwo52)));
  return _mm256_castsi256_pd(big) - _mm256_set1_pd(kTwo52 + 1023);
}
static inline D8 split(D8 x, D8* mantissa) {
  D8 exponent;
  exponent.low = split(x.low, &mantissa->low);
  exponent.high = split(x.high, &mantissa->high);
  return exponent;
}
#else
static inline D8 power_of_two(D8 shifted) {
  D8 result;
  for (int i = 0; i < 8; i++) {
    uint64_t bits;
    memcpy(&bits, &shifted.lane[i], 8);
    bits = (bits << 52) + kOneExponent;
    memcpy(&result.lane[i], &bits, 8);
  }
  return result;
}
static inline D8 split(D8 x, D8* mantissa) {
  D8 exponent;
  for (int i = 0; i < 8; i++) {
    uint64_t bits;
    memcpy(&bits, &x.lane[i], 8);
    const uint64_t biased = (bits + (kOneExponent - kLogCentre)) >> 52;
    bits = bits - (biased << 52) + kOneExponent;
    memcpy(&mantissa->lane[i], &bits, 8);
    exponent.lane[i] = static_cast<double>(static_cast<int64_t>(biased) - 1023);
  }
  return exponent;
}
#endif

// 1 / k!, each from the factorial before it.
struct ExpSeries {
  double inverse[kExpDegree + 1];
  constexpr ExpSeries() : inverse() {
    double factorial = 1;
    inverse[0] = 1;
    for (int k = 1; k <= kExpDegree; k++) {
      factorial *= k;
      inverse[k] = 1 / factorial;
    }
  }
};
constexpr ExpSeries kExpSeries;

// e^x for x <= 0; 0 below kExpLeast. A NaN stays one through the polynomial.
static inline D8 exp_non_positive(D8 x) {
  const D8 shifted = x * broadcast(kLog2e) + broadcast(kRound);
  const D8 n = shifted - broadcast(kRound);
  const D8 r = x - n * broadcast(kLn2High) - n * broadcast(kLn2Low);
  D8 p = broadcast(kExpSeries.inverse[kExpDegree]);
  for (int k = kExpDegree - 1; k >= 0; k--) p = p * r + broadcast(kExpSeries.inverse[k]);
  const D8 result = p * power_of_two(shifted);
  return choose(above(broadcast(kExpLeast), x), broadcast(0), result);
}

// ln x for normal x > 0: x = 2^k (1 + f), s = f / (2 + f) in the series of the inverse hyperbolic tangent.
static inline D8 log_positive(D8 x) {
  D8 mantissa;
  const D8 k = split(x, &mantissa);
  const D8 f = mantissa - broadcast(1);
  const D8 s = f / (f + broadcast(2));
  const D8 z = s * s;
  D8 series = broadcast(2.0 / (2 * kLogTerms + 1));
  for (int term = kLogTerms - 1; term >= 1; term--) series = series * z + broadcast(2.0 / (2 * term + 1));
  const D8 result = k * broadcast(kLn2Low) + (f - s * (f - z * series)) + k * broadcast(kLn2High);
  return choose(unordered(x), x, result);
}

static inline double sum_of_lanes(D8 values) {
  double v[8];
  store_doubles(v, values);
  const double a = v[0] + v[4], b = v[1] + v[5], c = v[2] + v[6], d = v[3] + v[7];
  return (a + c) + (b + d);
}

// Exponentials of x minus its largest entry, in place; the inverse of their sum. Behind the last entry x is -infinity.
static double exponentials(double* x, int64_t padded) {
  D8 most = broadcast(-std::numeric_limits<double>::infinity());
  for (int64_t i = 0; i < padded; i += 8) most = largest(load_doubles(x + i), most);
  double lanes[8];
  store_doubles(lanes, most);
  const D8 top = broadcast(*std::max_element(lanes, lanes + 8));
  D8 sum = broadcast(0);
  for (int64_t i = 0; i < padded; i += 8) {
    const D8 e = exp_non_positive(load_doubles(x + i) - top);
    store_doubles(x + i, e);
    sum = sum + e;
  }
  return 1 / sum_of_lanes(sum);
}

static void divergences_of_rows(const ImportancePair& pair, int64_t first, int64_t last, double* target) {
  const int64_t columns = pair.columns;
  const int64_t padded = (columns + 7) / 8 * 8;
  std::vector<double> buffers(static_cast<size_t>(2 * padded));
  double* const q = buffers.data();
  double* const p = q + padded;
  const D8 floor = broadcast(kDivergenceFloor);
  for (int64_t row = first; row < last; row++) {
    load_block(pair.a.bytes, pair.a.type, row * columns, columns, q);
    load_block(pair.b.bytes, pair.b.type, row * columns, columns, p);
    for (int64_t i = columns; i < padded; i++) q[i] = p[i] = -std::numeric_limits<double>::infinity();
    const D8 scale_q = broadcast(exponentials(q, padded)), scale_p = broadcast(exponentials(p, padded));
    D8 sum = broadcast(0);
    for (int64_t i = 0; i < padded; i += 8) {
      const D8 over = load_doubles(p + i) * scale_p + floor;
      sum = sum + over * log_positive(over / (load_doubles(q + i) * scale_q + floor));
    }
    target[row] = sum_of_lanes(sum);
  }
}

static inline D8 importance_lanes(D8 a, D8 b, bool wide, D8 divergence) {
  const D8 apart = wide ? b - a : doubles_of(floats_of(b) - floats_of(a));
  return magnitude(apart) * divergence;
}

constexpr int64_t kImportanceChunk = 512;

// `use(lanes at i, base lanes, other lanes, importances)` over whole lanes of chunks of [from, from + count).
template <class Use, class Finish>
static inline void over_importances(const ImportancePair& pair, double divergence, int64_t from, int64_t count, Use&& use,
                                    Finish&& finish) {
  alignas(64) double x[kImportanceChunk] = {}, y[kImportanceChunk] = {};
  const D8 factor = broadcast(divergence);
  for (int64_t at = 0; at < count; at += kImportanceChunk) {
    const int64_t length = std::min(kImportanceChunk, count - at);
    load_block(pair.a.bytes, pair.a.type, from + at, length, x);
    load_block(pair.b.bytes, pair.b.type, from + at, length, y);
    for (int64_t i = 0; i < length; i += 8) {
      const D8 a = load_doubles(x + i), b = load_doubles(y + i);
      use(x + i, std::min<int64_t>(8, length - i), a, b, importance_lanes(a, b, pair.wide, factor));
    }
    finish(x, at, length);
  }
}

static void importances_of_range(const ImportancePair& pair, double divergence, int64_t from, int64_t count,
                                 double* target) {
  over_importances(
      pair, divergence, from, count, [](double* at, int64_t, D8, D8, D8 importance) { store_doubles(at, importance); },
      [&](const double* x, int64_t at, int64_t length) {
        memcpy(target + at, x, sizeof(double) * static_cast<size_t>(length));
      });
}

static int64_t take_of_range(const ImportancePair& pair, double divergence, double threshold, int64_t from, int64_t count,
                             const StoredOutput& output) {
  int64_t taken = 0;
  const D8 least = broadcast(threshold);
  over_importances(
      pair, divergence, from, count,
      [&](double* at, int64_t lanes, D8 a, D8 b, D8 importance) {
        const uint32_t mask = not_below(importance, least);
        taken += __builtin_popcount(mask & ((1u << lanes) - 1));
        store_doubles(at, choose(mask, b, a));
      },
      [&](const double* x, int64_t at, int64_t length) { store_block(x, output.type, from + at, length, output.bytes); });
  return taken;
}

constexpr ImportanceKernels kImportanceLoops = {divergences_of_rows, importances_of_range, take_of_range};

}  // namespace
}  // namespace surprisal
