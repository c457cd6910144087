// Loops over blocks of task vectors; included by one translation unit for each instruction set. Whatever is summed or
// rounded runs in eight lanes (merge_elements.hpp), everything else is left to the compiler's vectors.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "merge_elements.hpp"
#include "merge_sparse.hpp"

namespace surprisal {
namespace {

static inline D8 load_lanes(const double* at) { return load_doubles(at); }
static inline D8 load_lanes(const float* at) {
  F8 lanes;
  memcpy(&lanes, at, 32);
  return doubles_of(lanes);
}

// Votes are rounded to the precision of the task vectors: where weighted changes of short mantissas cancel exactly, weights
// that are no binary fractions must not tip the scales.
static inline D8 vote_of(double, D8 x, double election) { return x * broadcast(election); }
static inline D8 vote_of(float, D8 x, double election) {
  return doubles_of(floats_of(x * broadcast(static_cast<double>(static_cast<float>(election)))));
}
static inline D8 sum_of_votes(double, D8 a, D8 b) { return a + b; }
static inline D8 sum_of_votes(float, D8 a, D8 b) { return doubles_of(floats_of(a + b)); }

static inline float magnitude_of(float x) { return __builtin_fabsf(x); }
static inline double magnitude_of(double x) { return __builtin_fabs(x); }

// (0 + 1) + (2 + 3) + ((4 + 5) + (6 + 7)).
static inline double lanes_total(D8 lanes) {
  double v[8];
  store_doubles(v, lanes);
  return (v[0] + v[1]) + (v[2] + v[3]) + ((v[4] + v[5]) + (v[6] + v[7]));
}

template <class T>
struct Counter;
template <>
struct Counter<float> {
  using Type = int32_t;
};
template <>
struct Counter<double> {
  using Type = int64_t;
};

template <class T>
struct SparseLoopsOver {
  using Count = typename Counter<T>::Type;

  static void load(const StoredElements& tensor, int64_t from, int64_t count, T* target) {
    load_block(tensor.bytes, tensor.type, from, count, target);
  }

  static int64_t difference(const StoredElements& model, int64_t from, int64_t count, const T* base, T* target) {
    load_block(model.bytes, model.type, from, count, target);
    Count nans = 0;
    if (base == nullptr) {
      for (int64_t i = 0; i < count; i++) {
        const T x = target[i];
        nans += x != x;
        target[i] = x != x ? 0 : x;
      }
    } else {
      for (int64_t i = 0; i < count; i++) {
        const T x = target[i] - base[i];
        nans += x != x;
        target[i] = x != x ? 0 : x;
      }
    }
    for (int64_t i = count; i & 7; i++) target[i] = 0;
    return nans;
  }

  static int64_t sparsify(T* values, int64_t count, T keep, T drop, const uint8_t* mask) {
    Count kept = 0;
    if (mask == nullptr) {
      for (int64_t i = 0; i < count; i++) {
        const T x = values[i];
        const T size = magnitude_of(x);
        const bool stays = (size >= keep) & !(size >= drop);
        values[i] = stays ? x : 0;
        kept += stays;
      }
      return kept;
    }
    int64_t i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      const __m512 least = _mm512_set1_ps(keep);
      const __m512 most = _mm512_set1_ps(drop);
      for (; i + 16 <= count; i += 16) {
        uint16_t bits;
        memcpy(&bits, mask + i / 8, 2);
        const __m512 x = _mm512_loadu_ps(values + i);
        const __m512 size = _mm512_abs_ps(x);
        __mmask16 stays = _mm512_mask_cmp_ps_mask(bits, size, least, _CMP_GE_OQ);
        stays &= ~_mm512_cmp_ps_mask(size, most, _CMP_GE_OQ);
        _mm512_storeu_ps(values + i, _mm512_maskz_mov_ps(stays, x));
        kept += __builtin_popcount(stays);
      }
    }
#endif
    for (; i < count; i++) {
      const T x = values[i];
      const T size = magnitude_of(x);
      const bool stays = (size >= keep) & !(size >= drop) & ((mask[i >> 3] >> (i & 7) & 1) != 0);
      values[i] = stays ? x : 0;
      kept += stays;
    }
    return kept;
  }

  static void divide(T* values, int64_t count, const T* probabilities) {
    // What was dropped stays zero: its probability may be anything.
    for (int64_t i = 0; i < count; i++) values[i] = values[i] != 0 ? values[i] / probabilities[i] : values[i];
  }

  static void magnitudes(T* values, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = magnitude_of(values[i]);
  }

  static void partition(const T* values, int64_t count, T low, T high, Partition* counts) {
    Count above = 0, from_high = 0, above_low = 0, from_low = 0;
    for (int64_t i = 0; i < count; i++) {
      const T x = values[i];
      above += x > high;
      from_high += x >= high;
      above_low += x > low;
      from_low += x >= low;
    }
    counts->above += above;
    counts->high += from_high - above;
    counts->inside += above_low - from_high;
    counts->low += from_low - above_low;
  }

  static int64_t count_equal(const T* values, int64_t count, T value) {
    Count found = 0;
    for (int64_t i = 0; i < count; i++) found += values[i] == value;
    return found;
  }

  static int64_t extract(const T* values, int64_t count, T low, T high, uint32_t* places) {
    int64_t found = 0;
    int64_t i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      const __m512 least = _mm512_set1_ps(low);
      const __m512 most = _mm512_set1_ps(high);
      const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
      for (; i + 16 <= count; i += 16) {
        const __m512 x = _mm512_loadu_ps(values + i);
        const __mmask16 inside =
            _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(x, least, _CMP_GT_OQ), x, most, _CMP_LT_OQ);
        if (inside == 0) continue;
        const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(i)));
        // Whole vectors: `places` has room for one more.
        _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(inside, at));
        found += __builtin_popcount(inside);
      }
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
      const __m256 least = _mm256_set1_ps(low);
      const __m256 most = _mm256_set1_ps(high);
      for (; i + 8 <= count; i += 8) {
        const __m256 x = _mm256_loadu_ps(values + i);
        unsigned inside = static_cast<unsigned>(_mm256_movemask_ps(
            _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_GT_OQ), _mm256_cmp_ps(x, most, _CMP_LT_OQ))));
        for (; inside != 0; inside &= inside - 1) places[found++] = static_cast<uint32_t>(i + __builtin_ctz(inside));
      }
    }
#endif
    for (; i < count; i++) {
      places[found] = static_cast<uint32_t>(i);
      found += (values[i] > low) & (values[i] < high);
    }
    return found;
  }

  static void sums(const T* values, int64_t count, double* target) {
    D8 sum = broadcast(0), absolute = broadcast(0), squares = broadcast(0);
    for (int64_t i = 0; i < count; i += 8) {
      const D8 x = load_lanes(values + i);
      sum = sum + x;
      absolute = absolute + magnitude(x);
      squares = squares + x * x;
    }
    target[0] = lanes_total(sum);
    target[1] = lanes_total(absolute);
    target[2] = lanes_total(squares);
  }

  static void variance(const T* const* vectors, int models, int64_t count, double* target) {
    const D8 number = broadcast(models);
    for (int64_t i = 0; i < count; i += 8) {
      D8 sum = broadcast(0);
      for (int j = 0; j < models; j++) sum = sum + load_lanes(vectors[j] + i);
      const D8 mean = sum / number;
      D8 squares = broadcast(0);
      for (int j = 0; j < models; j++) {
        const D8 away = load_lanes(vectors[j] + i) - mean;
        squares = squares + away * away;
      }
      store_doubles(target + i, squares / number);
    }
  }

  template <Consensus kConsensus>
  static inline __attribute__((always_inline)) void mix_with(const T* const* vectors, int models,
                                                             const MixedModel* mixed, const MixSettings& settings,
                                                             const double* origin, int64_t count, double* target,
                                                             MixTally* tally) {
    const D8 zero = broadcast(0), one = broadcast(1), infinite = broadcast(INFINITY);
    const D8 small = broadcast(settings.small_divisor);
    const D8 least = broadcast(settings.least_divisor);
    const D8 divisor = broadcast(settings.divisor);
    const D8 factor = broadcast(settings.factor);
    const bool raised = settings.least_divisor == settings.least_divisor;
    D8 smallest_divisor = infinite;
    for (int64_t i = 0; i < count; i += 8) {
      D8 sum = zero, agreeing = zero;
      if (kConsensus == Consensus::None) {
        for (int j = 0; j < models; j++) {
          sum = sum + load_lanes(vectors[j] + i) * broadcast(mixed[j].coefficient);
          agreeing = agreeing + broadcast(mixed[j].weight);
        }
      } else {
        D8 total = zero;
        for (int j = 0; j < models; j++) {
          const D8 vote = vote_of(T{}, load_lanes(vectors[j] + i), mixed[j].election);
          if (kConsensus == Consensus::Sum) total = sum_of_votes(T{}, total, vote);
          else total = total + choose(above(vote, zero), one, zero) - choose(above(zero, vote), one, zero);
        }
        const uint32_t positive = not_below(total, zero);
        uint32_t any = 0;
        for (int j = 0; j < models; j++) {
          const D8 x = load_lanes(vectors[j] + i);
          const D8 vote = vote_of(T{}, x, mixed[j].election);
          const uint32_t agrees = (above(vote, zero) & positive) | (above(zero, vote) & ~positive);
          any |= agrees;
          sum = sum + choose(agrees, x * broadcast(mixed[j].coefficient), zero);
          agreeing = agreeing + choose(agrees, broadcast(mixed[j].weight), zero);
        }
        if (settings.divide_by_agreeing) {
          const D8 size = magnitude(agreeing);
          smallest_divisor = smallest(smallest_divisor, choose(any, size, infinite));
          tally->small += __builtin_popcount(any & above(small, size));
        }
      }
      if (settings.divide_by_agreeing) {
        if (raised) agreeing = largest(agreeing, least);
        sum = sum / choose(equal(agreeing, zero), one, agreeing);
      }
      if (settings.divisor != 1) sum = sum / divisor;
      sum = sum * factor;
      store_doubles(target + i, sum + (origin == nullptr ? zero : load_doubles(origin + i)));
    }
    double lanes[8];
    store_doubles(lanes, smallest_divisor);
    for (const double lane : lanes) tally->smallest = lane < tally->smallest ? lane : tally->smallest;
  }

  static void mix(const T* const* vectors, int models, const MixedModel* mixed, const MixSettings& settings,
                  const double* origin, int64_t count, double* target, MixTally* tally) {
    switch (settings.consensus) {
      case Consensus::None:
        return mix_with<Consensus::None>(vectors, models, mixed, settings, origin, count, target, tally);
      case Consensus::Sum:
        return mix_with<Consensus::Sum>(vectors, models, mixed, settings, origin, count, target, tally);
      default:
        return mix_with<Consensus::Count>(vectors, models, mixed, settings, origin, count, target, tally);
    }
  }

  static void count_active(const T* const* vectors, int models, double epsilon, int64_t count, int64_t* shared,
                           int64_t* unique) {
    const D8 limit = broadcast(epsilon);
    for (int64_t i = 0; i < count; i += 8) {
      uint32_t once = 0, twice = 0;
      for (int j = 0; j < models; j++) {
        const uint32_t active = above(magnitude(load_lanes(vectors[j] + i)), limit);
        twice |= once & active;
        once |= active;
      }
      for (int j = 0; j < models; j++) {
        const uint32_t active = above(magnitude(load_lanes(vectors[j] + i)), limit);
        shared[j] += __builtin_popcount(active & twice);
        unique[j] += __builtin_popcount(active & ~twice);
      }
    }
  }

  static void mix_active(const T* const* vectors, int models, double epsilon, const double* factors,
                         const double* origin, int64_t count, double* target) {
    const D8 limit = broadcast(epsilon), zero = broadcast(0), one = broadcast(1);
    for (int64_t i = 0; i < count; i += 8) {
      D8 owners = zero, sum = zero, alone = zero;
      for (int j = 0; j < models; j++) {
        const D8 x = load_lanes(vectors[j] + i);
        const uint32_t active = above(magnitude(x), limit);
        owners = owners + choose(active, one, zero);
        sum = sum + choose(active, x, zero);
        alone = alone + choose(active, x * broadcast(factors[j]), zero);
      }
      const D8 mean = sum / largest(owners, one);
      store_doubles(target + i, load_doubles(origin + i) + choose(equal(owners, one), alone, mean));
    }
  }

  static void mix_by_variation(const T* const* vectors, int models, bool squares, double floor, const double* origin,
                               int64_t count, double* target) {
    const D8 zero = broadcast(0), one = broadcast(1);
    const bool raised = floor == floor;
    for (int64_t i = 0; i < count; i += 8) {
      const D8 at = load_doubles(origin + i);
      D8 total = zero, mixed = zero;
      for (int j = 0; j < models; j++) {
        const D8 x = load_lanes(vectors[j] + i);
        const D8 variation = squares ? x * x : magnitude(x);
        total = total + variation;
        mixed = mixed + variation * (raised ? x + at : x);
      }
      if (raised) store_doubles(target + i, mixed / largest(total, broadcast(floor)));
      else store_doubles(target + i, at + mixed / choose(equal(total, zero), one, total));
    }
  }

  static constexpr SparseLoops<T> kLoops = {difference, load,     sparsify, divide, magnitudes,   partition,  count_equal,
                                            extract,    sums,     variance, mix,    count_active, mix_active, mix_by_variation};
};

static void store_values(const double* values, const StoredOutput& output, int64_t from, int64_t count) {
  store_block(values, output.type, from, count, output.bytes);
}

static void load_origin(const StoredElements& tensor, int64_t from, int64_t count, double* target) {
  load_block(tensor.bytes, tensor.type, from, count, target);
  for (int64_t i = count; i & 7; i++) target[i] = 0;
}

// Philox4x32-10 (Salmon et al. 2011) of sixteen counters beside each other.
static void philox_words(const MaskKey& key, int64_t group, uint32_t* target) {
  const uint64_t counter = static_cast<uint64_t>(group) * 16;
  uint32_t* const c0 = target;
  uint32_t* const c1 = target + 16;
  uint32_t* const c2 = target + 32;
  uint32_t* const c3 = target + 48;
  for (int lane = 0; lane < 16; lane++) {
    c0[lane] = static_cast<uint32_t>(counter) + static_cast<uint32_t>(lane);
    c1[lane] = static_cast<uint32_t>(counter >> 32);
    c2[lane] = key.words[2];
    c3[lane] = key.words[3];
  }
  uint32_t k0 = key.words[0], k1 = key.words[1];
  for (int round = 0; round < 10; round++) {
    for (int lane = 0; lane < 16; lane++) {
      const uint64_t first = static_cast<uint64_t>(0xd2511f53u) * c0[lane];
      const uint64_t second = static_cast<uint64_t>(0xcd9e8d57u) * c2[lane];
      c0[lane] = static_cast<uint32_t>(second >> 32) ^ c1[lane] ^ k0;
      c2[lane] = static_cast<uint32_t>(first >> 32) ^ c3[lane] ^ k1;
      c1[lane] = static_cast<uint32_t>(second);
      c3[lane] = static_cast<uint32_t>(first);
    }
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
}

#if defined(__AVX512F__)
// The same, the sixteen counters in vectors.
static inline __attribute__((always_inline)) void philox_vectors(const MaskKey& key, int64_t group, __m512i c[4]) {
  const uint64_t counter = static_cast<uint64_t>(group) * 16;
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  c[0] = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(counter))));
  c[1] = _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(counter >> 32)));
  c[2] = _mm512_set1_epi32(static_cast<int>(key.words[2]));
  c[3] = _mm512_set1_epi32(static_cast<int>(key.words[3]));
  const __m512i m0 = _mm512_set1_epi32(static_cast<int>(0xd2511f53u));
  const __m512i m1 = _mm512_set1_epi32(static_cast<int>(0xcd9e8d57u));
  uint32_t k0 = key.words[0], k1 = key.words[1];
  for (int round = 0; round < 10; round++) {
    const __m512i even0 = _mm512_mul_epu32(c[0], m0);
    const __m512i odd0 = _mm512_mul_epu32(_mm512_srli_epi64(c[0], 32), m0);
    const __m512i even1 = _mm512_mul_epu32(c[2], m1);
    const __m512i odd1 = _mm512_mul_epu32(_mm512_srli_epi64(c[2], 32), m1);
    const __m512i high0 = _mm512_mask_mov_epi32(_mm512_srli_epi64(even0, 32), 0xaaaa, odd0);
    const __m512i high1 = _mm512_mask_mov_epi32(_mm512_srli_epi64(even1, 32), 0xaaaa, odd1);
    const __m512i low0 = _mm512_mask_mov_epi32(even0, 0xaaaa, _mm512_slli_epi64(odd0, 32));
    const __m512i low1 = _mm512_mask_mov_epi32(even1, 0xaaaa, _mm512_slli_epi64(odd1, 32));
    c[0] = _mm512_ternarylogic_epi32(high1, c[1], _mm512_set1_epi32(static_cast<int>(k0)), 0x96);
    c[2] = _mm512_ternarylogic_epi32(high0, c[3], _mm512_set1_epi32(static_cast<int>(k1)), 0x96);
    c[1] = low1;
    c[3] = low0;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
}

static uint64_t philox_below(const MaskKey& key, int64_t group, uint32_t limit) {
  __m512i c[4];
  philox_vectors(key, group, c);
  const __m512i bound = _mm512_set1_epi32(static_cast<int>(limit));
  uint64_t bits = 0;
  for (int k = 0; k < 4; k++) {
    bits |= static_cast<uint64_t>(_mm512_cmplt_epu32_mask(c[k], bound)) << (16 * k);
  }
  return bits;
}
#else
static uint64_t philox_below(const MaskKey& key, int64_t group, uint32_t limit) {
  uint32_t words[64];
  philox_words(key, group, words);
  uint64_t bits = 0;
#if defined(__AVX2__)
  const __m256i sign = _mm256_set1_epi32(INT32_MIN);
  const __m256i bound = _mm256_xor_si256(_mm256_set1_epi32(static_cast<int>(limit)), sign);
  for (int k = 0; k < 8; k++) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + 8 * k));
    const __m256i below = _mm256_cmpgt_epi32(bound, _mm256_xor_si256(x, sign));
    const uint32_t mask = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(below)));
    bits |= static_cast<uint64_t>(mask) << (8 * k);
  }
#else
  for (int k = 0; k < 64; k++) bits |= static_cast<uint64_t>(words[k] < limit) << k;
#endif
  return bits;
}
#endif

constexpr SparseKernels kSparseLoops = {SparseLoopsOver<float>::kLoops,
                                        SparseLoopsOver<double>::kLoops,
                                        store_values,
                                        load_origin,
                                        philox_words,
                                        philox_below};

}  // namespace
}  // namespace surprisal
