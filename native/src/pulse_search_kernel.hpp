// The pulse search, written once over a vector of floats and included by one translation unit an instruction set.
// Groups lie in the lanes: a tile holds kUnits * kLanes groups, coordinate after coordinate, so that every step of the
// search is a pass over D coordinates without a sum across lanes. kUnits vectors run beside each other, because a pass
// is one chain of compare and select.
//
// Every operation stands in the order of src/kernels/pulse-search-reference.ts; nothing is contracted.
#pragma once
#include "pulse_search_modes.hpp"

namespace surprisal {
namespace {

// Weights h / max h of one lane, not below kLeastImportance; what is padded weighs as much as the heaviest.
static void load_weights(const SearchGroup& group, int length, float* h) {
  float heaviest = 0;
  for (int j = 0; j < group.width; j++) heaviest = group.h[j] > heaviest ? group.h[j] : heaviest;
  for (int j = 0; j < length; j++) {
    const float share = heaviest > 0 && j < group.width ? group.h[j] / heaviest : 1.0f;
    h[j * kTile] = share > kLeastImportance ? share : kLeastImportance;
  }
}

#if defined(__AVX2__)
// Rows of a block of 8 x 8 become its columns.
static inline void transpose(__m256 v[8]) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    v[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

// Coordinates that blocks of eight groups from `lane` on take; the rest goes one by one.
static inline int blocked(const SearchGroup* groups, int lane, int count, int length) {
  if (lane + 8 > count) return 0;
  for (int l = 0; l < 8; l++) {
    if (groups[lane + l].width < length) return 0;
  }
  return length & ~7;
}

static inline void load_block(const SearchGroup* groups, int lane, int j, float* sizes) {
  __m256 v[8];
  for (int l = 0; l < 8; l++) v[l] = _mm256_loadu_ps(groups[lane + l].x + j);
  transpose(v);
  for (int i = 0; i < 8; i++) _mm256_storeu_ps(sizes + (j + i) * kTile + lane, v[i]);
}

static inline void store_block(const SearchGroup* groups, int lane, int j, const int32_t* y) {
  __m256 v[8];
  for (int i = 0; i < 8; i++) v[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(y) + (j + i) * kTile + lane);
  transpose(v);
  for (int l = 0; l < 8; l++) {
    const __m256 x = _mm256_loadu_ps(groups[lane + l].x + j);
    const __m256i sign = _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
    const __m256i pulses = _mm256_sub_epi32(_mm256_xor_si256(_mm256_castps_si256(v[l]), sign), sign);
    const __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(pulses), _mm256_extracti128_si256(pulses, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(groups[lane + l].pulses + j), narrow);
  }
}
#else
static inline int blocked(const SearchGroup*, int, int, int) { return 0; }
static inline void load_block(const SearchGroup*, int, int, float*) {}
static inline void store_block(const SearchGroup*, int, int, const int32_t*) {}
#endif

// Fills u with |x| / max |x|. Lanes without a group, and groups of zeros (bit set in the result), get a group of their own.
static bool load_tile(Tile& t, const SearchSettings& settings, const SearchGroup* groups, int count, bool weighted,
                      bool capped, uint32_t* zeros) {
  const int length = t.length;
  float* sizes = reinterpret_cast<float*>(t.sizes);
  int done = 0;
  for (int lane = 0; lane < kTile; lane++) {
    const SearchGroup& group = groups[lane < count ? lane : 0];
    if (lane % 8 == 0) {
      done = blocked(groups, lane, count, length);
      for (int j = 0; j < done; j += 8) load_block(groups, lane, j, sizes);
    }
    for (int j = done; j < group.width; j++) sizes[j * kTile + lane] = group.x[j];
    for (int j = group.width; j < length; j++) sizes[j * kTile + lane] = 0;
    if (weighted) load_weights(group, length, reinterpret_cast<float*>(t.h) + lane);
  }
  Row most{};
  I hostile{};
  for (int j = 0; j < length; j++) {
    for (int k = 0; k < kUnits; k++) {
      const F x = t.sizes[j].at[k];
      if (capped) {
        t.caps[j].at[k] = x < 0.0f ? splat(static_cast<float>(settings.negative_cap))
                                   : splat(static_cast<float>(settings.cap));
      }
      const F size = (F)((I)x & 0x7fffffff);
      t.sizes[j].at[k] = size;
      hostile |= (I)size > 0x7f7fffff;
      most.at[k] = larger(size, most.at[k]);
    }
  }
  if (any(hostile)) return false;
  *zeros = 0;
  for (int lane = 0; lane < kTile; lane++) {
    if (most.at[lane / kLanes][lane % kLanes] > 0) continue;
    *zeros |= uint32_t{1} << lane;
    sizes[lane] = 1;
    most.at[lane / kLanes][lane % kLanes] = 1;
  }
  Row l1{}, energy{}, inverse_sum{}, least;
  for (int k = 0; k < kUnits; k++) least.at[k] = splat(1.0f);
  for (int j = 0; j < length; j++) {
    for (int k = 0; k < kUnits; k++) {
      const F v = t.sizes[j].at[k] / most.at[k];
      t.u[j].at[k] = v;
      l1.at[k] = l1.at[k] + v;
      if (weighted) {
        const F h = t.h[j].at[k];
        t.hu[j].at[k] = h * v;
        energy.at[k] = energy.at[k] + (h * v) * v;
        inverse_sum.at[k] = inverse_sum.at[k] + 1.0f / h;
        least.at[k] = smaller(least.at[k], h);
      } else {
        energy.at[k] = energy.at[k] + v * v;
      }
    }
  }
  t.l1 = l1;
  t.energy = energy;
  t.least_weight = least;
  t.inverse_sum = inverse_sum;
  if (!weighted) {
    for (int k = 0; k < kUnits; k++) t.inverse_sum.at[k] = splat(static_cast<float>(length));
  }
  return true;
}

static void store_pulses(Tile& t, const SearchSettings& settings, const SearchGroup* groups, int count,
                         uint32_t zeros) {
  for (int j = 0; j < t.length; j++) {
    for (int k = 0; k < kUnits; k++) t.y[j].at[k] = (F)__builtin_convertvector(t.y[j].at[k], I);
  }
  const int32_t* y = reinterpret_cast<const int32_t*>(t.y);
  int done = 0;
  for (int lane = 0; lane < count; lane++) {
    const SearchGroup& group = groups[lane];
    int16_t* pulses = group.pulses;
    if (lane % 8 == 0) {
      done = blocked(groups, lane, count, t.length);
      for (int j = 0; j < done; j += 8) store_block(groups, lane, j, y);
    }
    if ((zeros >> lane) & 1u) {
      int left = settings.pulses;
      for (int j = 0; j < t.length; j++) {
        const int here = settings.cap > 0 && settings.cap < left ? settings.cap : left;
        pulses[j] = static_cast<int16_t>(here);
        left -= here;
      }
      continue;
    }
    // Without branches: signs are unpredictable.
    for (int j = done; j < group.width; j++) {
      const int32_t sign = -static_cast<int32_t>(group.x[j] < 0);
      pulses[j] = static_cast<int16_t>((y[j * kTile + lane] ^ sign) - sign);
    }
    for (int j = group.width; j < t.length; j++) pulses[j] = static_cast<int16_t>(y[j * kTile + lane]);
  }
}

// The sums of all lanes in double, each in the order of its coordinates; y as in `store_pulses`.
static void sum_tile(const Tile& t, const SearchGroup* groups, int count) {
  alignas(kBytes) double sums[3][kTile];
  const float* sizes = reinterpret_cast<const float*>(t.sizes);
  const int32_t* y = reinterpret_cast<const int32_t*>(t.y);
  for (int part = 0; part < kTile; part += kLanes / 2) {
    D energy{}, cross{}, norm{};
    for (int j = 0; j < t.length; j++) {
      HalfF size;
      HalfI pulses;
      memcpy(&size, sizes + j * kTile + part, sizeof size);
      memcpy(&pulses, y + j * kTile + part, sizeof pulses);
      const D x = __builtin_convertvector(size, D);
      const D v = __builtin_convertvector(pulses, D);
      energy = energy + x * x;
      cross = cross + x * v;
      norm = norm + v * v;
    }
    memcpy(&sums[0][part], &energy, sizeof energy);
    memcpy(&sums[1][part], &cross, sizeof cross);
    memcpy(&sums[2][part], &norm, sizeof norm);
  }
  for (int lane = 0; lane < count; lane++) {
    const double norm = sums[2][lane];
    *groups[lane].sums = {sums[0][lane], sums[1][lane], norm, norm, sums[1][lane], norm};
  }
}

// What the lanes do not know: pulses of a group of zeros, of padded coordinates, and weights.
static void sum_apart(const SearchGroup& group, int length) {
  GroupSums& sums = *group.sums;
  sums.stored_norm = 0;
  for (int j = 0; j < group.width; j++) {
    const double y = group.pulses[j];
    sums.stored_norm += y * y;
  }
  sums.norm = sums.stored_norm;
  for (int j = group.width; j < length; j++) {
    const double y = group.pulses[j];
    sums.norm += y * y;
  }
  if (sums.energy == 0) sums.cross = 0;
  sums.weighted_cross = sums.cross;
  sums.weighted_norm = sums.stored_norm;
  if (group.h == nullptr) return;
  sums.weighted_cross = sums.weighted_norm = 0;
  for (int j = 0; j < group.width; j++) {
    const double weighted = static_cast<double>(group.h[j]) * group.pulses[j];
    sums.weighted_cross += weighted * group.x[j];
    sums.weighted_norm += weighted * group.pulses[j];
  }
}

static float largest_error(const float* x, int64_t columns, const int16_t* y, int length, const float* factors) {
  // Magnitudes of floats ascend with their bits.
  int32_t most = 0;
  for (int64_t start = 0; start < columns; start += length, factors++) {
    const int width = static_cast<int>(columns - start < length ? columns - start : length);
    const float factor = *factors;
    for (int j = 0; j < width; j++) {
      const float error = x[start + j] - factor * static_cast<float>(y[start + j]);
      int32_t bits;
      memcpy(&bits, &error, 4);
      bits &= 0x7fffffff;
      most = bits > most ? bits : most;
    }
  }
  float result;
  memcpy(&result, &most, 4);
  return result;
}

// How many of `count` thresholds lie below values[g] / scale, for every g: the code of the nearest level.
static void nearest_codes(const double* values, int64_t groups, double scale, const double* thresholds, int count,
                          uint8_t* codes) {
  constexpr int kDoubles = kLanes / 2;
  int64_t g = 0;
  for (; g + kDoubles <= groups; g += kDoubles) {
    D value;
    memcpy(&value, values + g, sizeof value);
    value = value / scale;
    Long below{};
    // A comparison is -1 where it holds.
    for (int j = 0; j < count; j++) below -= value > thresholds[j];
    for (int l = 0; l < kDoubles; l++) codes[g + l] = static_cast<uint8_t>(below[l]);
  }
  for (; g < groups; g++) {
    const double value = values[g] / scale;
    int below = 0;
    for (int j = 0; j < count; j++) below += value > thresholds[j];
    codes[g] = static_cast<uint8_t>(below);
  }
}

static int64_t tile_floats(int length) { return static_cast<int64_t>(8) * length * kTile; }

static bool search(const SearchSettings& settings, const SearchGroup* groups, int count, float* memory) {
  Tile t;
  t.length = settings.length;
  t.pulses = static_cast<float>(settings.pulses);
  Row* rows = reinterpret_cast<Row*>(memory);
  Row** parts[] = {&t.u, &t.y, &t.sizes, &t.scaled, &t.other, &t.h, &t.hu, &t.caps};
  for (Row** part : parts) {
    *part = rows;
    rows += t.length;
  }
  const bool weighted = groups[0].h != nullptr;
  const bool capped = settings.cap > 0;
  uint32_t zeros;
  if (!load_tile(t, settings, groups, count, weighted, capped, &zeros)) return false;
  if (weighted && capped) search_tile<true, true>(t, settings);
  else if (weighted) search_tile<true, false>(t, settings);
  else if (capped) search_tile<false, true>(t, settings);
  else search_tile<false, false>(t, settings);
  store_pulses(t, settings, groups, count, zeros);
  if (groups[0].sums == nullptr) return true;
  sum_tile(t, groups, count);
  for (int lane = 0; lane < count; lane++) {
    const bool zero = ((zeros >> lane) & 1u) != 0;
    if (zero) groups[lane].sums->energy = 0;
    if (zero || weighted || groups[lane].width < t.length) sum_apart(groups[lane], t.length);
  }
  return true;
}

}  // namespace
}  // namespace surprisal
