// The pulse search, written once over a vector of floats and included by one translation unit an instruction set.
// Groups lie in the lanes: a tile holds kUnits * kLanes groups, coordinate after coordinate, so that every step of the
// search is a pass over D coordinates without a sum across lanes. kUnits vectors run beside each other, because a pass
// is one chain of compare and select.
//
// Every operation stands in the order of src/kernels/pulse-search-reference.ts; nothing is contracted.
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
static inline F weight(const Tile& t, int j, int k) {
  if constexpr (kWeighted) return t.h[j].at[k];
  return splat(1.0f);
}

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

template <bool kWeighted, bool kCapped>
static void greedy(Tile& t, Row* y) {
  const int length = t.length;
  Row left;
  for (int k = 0; k < kUnits; k++) left.at[k] = splat(t.pulses);
  if (t.pulses > static_cast<float>(length >> 1)) {
    for (int j = 0; j < length; j++) {
      for (int k = 0; k < kUnits; k++) {
        const F share = (t.pulses * t.u[j].at[k]) / t.l1.at[k];
        F count = __builtin_convertvector(__builtin_convertvector(share, I), F);
        count = smaller(count, left.at[k]);
        if constexpr (kCapped) count = smaller(count, t.caps[j].at[k]);
        y[j].at[k] = count;
        left.at[k] = left.at[k] - count;
      }
    }
  } else {
    memset(y, 0, sizeof(Row) * length);
  }
  products<kWeighted>(t, y);
  Row chosen;
  for (int k = 0; k < kUnits; k++) chosen.at[k] = splat(-1.0f);
  for (;;) {
    I some{};
    for (int k = 0; k < kUnits; k++) some |= left.at[k] > 0.0f;
    const bool more = any(some);
    Row numerator, denominator, sum, next;
    for (int k = 0; k < kUnits; k++) {
      numerator.at[k] = splat(-1.0f);
      denominator.at[k] = splat(1.0f);
      next.at[k] = splat(-1.0f);
      sum.at[k] = t.xy.at[k];
    }
    // The pulse of the last pass is put in its place on the way.
    for (int j = 0; j < length; j++) {
      const float index = static_cast<float>(j);
      for (int k = 0; k < kUnits; k++) {
        const F v = chosen.at[k] == index ? y[j].at[k] + 1.0f : y[j].at[k];
        y[j].at[k] = v;
        const F to = t.xy.at[k] + weighted_u<kWeighted>(t, j, k);
        const F top = to * to;
        const F bottom = t.yy.at[k] + times_weight<kWeighted>(t, j, k, 2.0f * v + 1.0f);
        I better = top * denominator.at[k] > numerator.at[k] * bottom;
        if constexpr (kCapped) better &= v < t.caps[j].at[k];
        numerator.at[k] = better ? top : numerator.at[k];
        denominator.at[k] = better ? bottom : denominator.at[k];
        sum.at[k] = better ? to : sum.at[k];
        next.at[k] = better ? splat(index) : next.at[k];
      }
    }
    if (!more) break;
    for (int k = 0; k < kUnits; k++) {
      const I active = left.at[k] > 0.0f;
      t.xy.at[k] = active ? sum.at[k] : t.xy.at[k];
      t.yy.at[k] = active ? denominator.at[k] : t.yy.at[k];
      chosen.at[k] = active ? next.at[k] : splat(-1.0f);
      left.at[k] = active ? left.at[k] - 1.0f : left.at[k];
    }
  }
  products<kWeighted>(t, y);
}

// The points nearest to alpha u.
template <bool kWeighted, bool kCapped>
static void near(Tile& t, const Row& alpha, Row* y) {
  const int length = t.length;
  Row left, tau;
  for (int k = 0; k < kUnits; k++) {
    tau.at[k] = (t.pulses - alpha.at[k] * t.l1.at[k]) / t.inverse_sum.at[k];
    left.at[k] = splat(t.pulses);
  }
  for (int j = 0; j < length; j++) {
    for (int k = 0; k < kUnits; k++) {
      const F scaled = alpha.at[k] * t.u[j].at[k];
      t.scaled[j].at[k] = scaled;
      F shift = tau.at[k];
      if constexpr (kWeighted) shift = shift / t.h[j].at[k];
      F most = splat(t.pulses);
      if constexpr (kCapped) most = t.caps[j].at[k];
      const F count = ceiling(smaller(larger((scaled + shift) - 0.5f, F{}), most));
      y[j].at[k] = count;
      left.at[k] = left.at[k] - count;
    }
  }
  // Pulses are added or taken away one a pass; each pass first puts the one of the pass before it in its place.
  Row chosen, step, sign;
  for (int k = 0; k < kUnits; k++) {
    chosen.at[k] = splat(-1.0f);
    sign.at[k] = left.at[k] < 0.0f ? splat(-1.0f) : splat(1.0f);
    step.at[k] = sign.at[k];
  }
  for (;;) {
    I some{};
    for (int k = 0; k < kUnits; k++) some |= left.at[k] != 0.0f;
    const bool more = any(some);
    Row most, next, xy{}, yy{};
    for (int k = 0; k < kUnits; k++) {
      most.at[k] = splat(-__builtin_inff());
      next.at[k] = splat(-1.0f);
    }
    for (int j = 0; j < length; j++) {
      const float index = static_cast<float>(j);
      for (int k = 0; k < kUnits; k++) {
        const F v = chosen.at[k] == index ? y[j].at[k] + step.at[k] : y[j].at[k];
        y[j].at[k] = v;
        xy.at[k] = xy.at[k] + weighted_u<kWeighted>(t, j, k) * v;
        yy.at[k] = yy.at[k] + times_weight<kWeighted>(t, j, k, v) * v;
        F value = sign.at[k] * (t.scaled[j].at[k] - v);
        if constexpr (kWeighted) value = t.h[j].at[k] * (value - 0.5f);
        // Adding is always open without caps; taking away needs a pulse.
        I better = (value > most.at[k]) & ((sign.at[k] > 0.0f) | (v > 0.0f));
        if constexpr (kCapped) better &= (sign.at[k] < 0.0f) | (v < t.caps[j].at[k]);
        most.at[k] = better ? value : most.at[k];
        next.at[k] = better ? splat(index) : next.at[k];
      }
    }
    if (!more) {
      t.xy = xy;
      t.yy = yy;
      return;
    }
    for (int k = 0; k < kUnits; k++) {
      const I active = left.at[k] != 0.0f;
      chosen.at[k] = active ? next.at[k] : splat(-1.0f);
      left.at[k] = active ? left.at[k] - sign.at[k] : left.at[k];
    }
  }
}

template <bool kWeighted, bool kCapped>
static void fixed_point(Tile& t, Row* y, Row* trial) {
  Row best_xy{}, best_yy, alpha;
  for (int k = 0; k < kUnits; k++) {
    best_yy.at[k] = splat(1.0f);
    alpha.at[k] = t.pulses / t.l1.at[k];
  }
  for (int step = 0; step < kIterations; step++) {
    near<kWeighted, kCapped>(t, alpha, trial);
    I moving{};
    Row better;
    for (int k = 0; k < kUnits; k++) {
      const I more = exceeds(t.xy.at[k], t.yy.at[k], best_xy.at[k], best_yy.at[k]);
      better.at[k] = more ? splat(1.0f) : F{};
      best_xy.at[k] = more ? t.xy.at[k] : best_xy.at[k];
      best_yy.at[k] = more ? t.yy.at[k] : best_yy.at[k];
      const F next = t.yy.at[k] / t.xy.at[k];
      moving |= next != alpha.at[k];
      alpha.at[k] = next;
    }
    for (int j = 0; j < t.length; j++) {
      for (int k = 0; k < kUnits; k++) y[j].at[k] = better.at[k] > 0.0f ? trial[j].at[k] : y[j].at[k];
    }
    if (!any(moving)) break;
  }
  t.xy = best_xy;
  t.yy = best_yy;
}

template <bool kWeighted, bool kCapped>
static void exchange(Tile& t, Row* y) {
  const int length = t.length;
  const int64_t most_steps = static_cast<int64_t>(t.pulses) + length;
  for (int64_t step = 0; step < most_steps; step++) {
    Row numerator, denominator, sum, from, to;
    for (int k = 0; k < kUnits; k++) {
      numerator.at[k] = t.xy.at[k] * t.xy.at[k];
      denominator.at[k] = t.yy.at[k];
      sum.at[k] = t.xy.at[k];
      from.at[k] = to.at[k] = splat(-1.0f);
    }
    for (int i = 0; i < length; i++) {
      Row freed, taken;
      I some{};
      for (int k = 0; k < kUnits; k++) {
        freed.at[k] = times_weight<kWeighted>(t, i, k, 2.0f * y[i].at[k] - 1.0f);
        taken.at[k] = weighted_u<kWeighted>(t, i, k);
        some |= y[i].at[k] > 0.0f;
      }
      if (!any(some)) continue;
      for (int j = 0; j < length; j++) {
        if (j == i) continue;
        for (int k = 0; k < kUnits; k++) {
          const F total = t.xy.at[k] + (weighted_u<kWeighted>(t, j, k) - taken.at[k]);
          const F top = total * total;
          const F added = times_weight<kWeighted>(t, j, k, 2.0f * y[j].at[k] + 1.0f);
          const F bottom = t.yy.at[k] + (added - freed.at[k]);
          I better = (top * denominator.at[k] > numerator.at[k] * bottom) & (y[i].at[k] > 0.0f) & (total > 0.0f);
          if constexpr (kCapped) better &= y[j].at[k] < t.caps[j].at[k];
          numerator.at[k] = better ? top : numerator.at[k];
          denominator.at[k] = better ? bottom : denominator.at[k];
          sum.at[k] = better ? total : sum.at[k];
          from.at[k] = better ? splat(static_cast<float>(i)) : from.at[k];
          to.at[k] = better ? splat(static_cast<float>(j)) : to.at[k];
        }
      }
    }
    I moved{};
    for (int k = 0; k < kUnits; k++) moved |= from.at[k] >= 0.0f;
    if (!any(moved)) break;
    for (int j = 0; j < length; j++) {
      const float index = static_cast<float>(j);
      for (int k = 0; k < kUnits; k++) {
        F v = y[j].at[k];
        v = from.at[k] == index ? v - 1.0f : v;
        y[j].at[k] = to.at[k] == index ? v + 1.0f : v;
      }
    }
    // Where nothing was found, both are what they were.
    t.xy = sum;
    t.yy = denominator;
  }
  products<kWeighted>(t, y);
}

// Bounds of alpha* from the angle of a point that is known.
static void alpha_range(const Tile& t, Row& low, Row& high) {
  const float shrink = static_cast<float>(1 - kRangeMargin);
  const float grow = static_cast<float>(1 + kRangeMargin);
  const F one = splat(1.0f);
  for (int k = 0; k < kUnits; k++) {
    const F l1 = t.l1.at[k], energy = t.energy.at[k];
    const F square = smaller(one, (t.xy.at[k] * t.xy.at[k]) / (t.yy.at[k] * energy));
    const F cosine = square_root(square);
    const F sine = square_root((1.0f - square) + kAngleMargin);
    const F product = t.inverse_sum.at[k] * energy;
    const F across = square_root(larger(F{}, product - l1 * l1));
    const F along = l1 * cosine;
    const F aside = across * sine;
    const F span = cosine * (along - aside);
    const F length = cosine * square_root(energy);
    high.at[k] = (t.pulses / larger(span, length)) * grow;
    const F reach = square_root(product) + l1;
    const I narrow = sine * reach < across * cosine;
    const F bound = narrow ? t.pulses / (cosine * (along + aside)) : (2.0f * t.pulses) / reach;
    const F least = square_root((t.least_weight.at[k] * t.pulses) / energy);
    low.at[k] = larger(bound, least) * shrink;
  }
}

// What a pass of the walk finds in one vector of lanes: where a pulse is best added and best taken away at alpha.
struct Candidates {
  F most, to, to_u, to_y, to_h;
  F least, from, from_u, from_y, from_h;
};

// One pass: first the transfers of `make_from` and `make_to` are made; then, with kKeep, the lanes of `keep` copy their
// point to y.
template <bool kWeighted, bool kCapped, bool kKeep>
static inline void walk_pass(const Tile& t, int k, F alpha, F make_from, F make_to, I keep, Row* y, Row* trial,
                             Candidates& found) {
  const F none = splat(-1.0f);
  F most = splat(-__builtin_inff()), to = none, to_u{}, to_y{}, to_h{};
  F least = splat(__builtin_inff()), from = none, from_u{}, from_y{}, from_h{};
  const int length = t.length;
  for (int j = 0; j < length; j++) {
    const F index = splat(static_cast<float>(j));
    F v = trial[j].at[k];
    v = make_from == index ? v - 1.0f : v;
    v = make_to == index ? v + 1.0f : v;
    trial[j].at[k] = v;
    if constexpr (kKeep) y[j].at[k] = keep ? v : y[j].at[k];
    const F u = weighted_u<kWeighted>(t, j, k);
    F gain, loss;
    if constexpr (kWeighted) {
      const F residual = alpha * u - t.h[j].at[k] * v;
      const F half = 0.5f * t.h[j].at[k];
      gain = residual - half;
      loss = residual + half;
    } else {
      gain = loss = alpha * u - v;
    }
    I more = gain > most;
    if constexpr (kCapped) more &= v < t.caps[j].at[k];
    most = more ? gain : most;
    to = more ? index : to;
    to_u = more ? u : to_u;
    to_y = more ? v : to_y;
    const I less = (loss < least) & (v > 0.0f);
    least = less ? loss : least;
    from = less ? index : from;
    from_u = less ? u : from_u;
    from_y = less ? v : from_y;
    if constexpr (kWeighted) {
      to_h = more ? t.h[j].at[k] : to_h;
      from_h = less ? t.h[j].at[k] : from_h;
    }
  }
  found = {most, to, to_u, to_y, to_h, least, from, from_u, from_y, from_h};
}

// Walks the transfers from the point of `trial`, near(low), to `high` in the lanes of vector k, and leaves the best point
// in y. Every lane is at a step of its own: one that found a pair looks for a better one at that pair's alpha, one that
// has its transfer makes it in the next pass, one that has none rests.
template <bool kWeighted, bool kCapped>
static void walk(const Tile& t, int k, F high, F best_xy, F best_yy, Row* y, Row* trial) {
  const F none = splat(-1.0f);
  F xy = t.xy.at[k], yy = t.yy.at[k];
  F from = none, to = none, make_from = none, make_to = none, growth{}, cost{};
  F alpha = high;
  I keep = exceeds(xy, yy, best_xy, best_yy);
  best_xy = keep ? xy : best_xy;
  best_yy = keep ? yy : best_yy;
  for (;;) {
    Candidates next;
    if (any(keep)) {
      walk_pass<kWeighted, kCapped, true>(t, k, alpha, make_from, make_to, keep, y, trial, next);
    } else {
      walk_pass<kWeighted, kCapped, false>(t, k, alpha, make_from, make_to, keep, y, trial, next);
    }
    const F span = next.to_u - next.from_u;
    F price, change;
    if constexpr (kWeighted) {
      price = next.to_h * (next.to_y + 0.5f) - next.from_h * (next.from_y - 0.5f);
      change = next.to_h * (2.0f * next.to_y + 1.0f) - next.from_h * (2.0f * next.from_y - 1.0f);
    } else {
      price = (next.to_y - next.from_y) + 1.0f;
      change = 2.0f * price;
    }
    const F ratio = price / span;
    const F gap = splat(kWeighted ? 0.0f : 1.0f);
    const I pair = (next.most - next.least > gap) & (span > 0.0f) & (ratio < alpha);
    const I make = ~pair & (to >= 0.0f);
    if (!any(pair | make)) return;
    make_from = make ? from : none;
    make_to = make ? to : none;
    xy = make ? xy + growth : xy;
    yy = make ? yy + cost : yy;
    keep = make & exceeds(xy, yy, best_xy, best_yy);
    best_xy = keep ? xy : best_xy;
    best_yy = keep ? yy : best_yy;
    from = pair ? next.from : none;
    to = pair ? next.to : none;
    growth = span;
    cost = change;
    alpha = pair ? ratio : high;
  }
}

template <bool kWeighted, bool kCapped>
static void exact(Tile& t, Row* y, Row* trial) {
  Row low, high, alpha;
  for (int k = 0; k < kUnits; k++) alpha.at[k] = t.pulses / t.l1.at[k];
  near<kWeighted, kCapped>(t, alpha, y);
  const Row xy = t.xy, yy = t.yy;
  alpha_range(t, low, high);
  near<kWeighted, kCapped>(t, low, trial);
  for (int k = 0; k < kUnits; k++) {
    walk<kWeighted, kCapped>(t, k, high.at[k], xy.at[k], yy.at[k], y, trial);
  }
}

template <bool kWeighted, bool kCapped>
static void search_tile(Tile& t, const SearchSettings& settings) {
  switch (settings.mode) {
    case SearchMode::Exact:
      exact<kWeighted, kCapped>(t, t.y, t.other);
      return;
    case SearchMode::Greedy:
      greedy<kWeighted, kCapped>(t, t.y);
      if (settings.exchange) exchange<kWeighted, kCapped>(t, t.y);
      return;
    case SearchMode::FixedPoint:
      fixed_point<kWeighted, kCapped>(t, t.y, t.other);
      if (settings.exchange) exchange<kWeighted, kCapped>(t, t.y);
      return;
    case SearchMode::Best: {
      fixed_point<kWeighted, kCapped>(t, t.y, t.other);
      exchange<kWeighted, kCapped>(t, t.y);
      const Row xy = t.xy, yy = t.yy;
      greedy<kWeighted, kCapped>(t, t.other);
      exchange<kWeighted, kCapped>(t, t.other);
      for (int k = 0; k < kUnits; k++) {
        const I second = exceeds(xy.at[k], yy.at[k], t.xy.at[k], t.yy.at[k]);
        for (int j = 0; j < t.length; j++) t.y[j].at[k] = second ? t.y[j].at[k] : t.other[j].at[k];
      }
      return;
    }
  }
}

// Weights h / max h of one lane, not below kLeastImportance; what is padded weighs as much as the heaviest.
static void load_weights(const SearchGroup& group, int length, float* h) {
  float heaviest = 0;
  for (int j = 0; j < group.width; j++) heaviest = group.h[j] > heaviest ? group.h[j] : heaviest;
  for (int j = 0; j < length; j++) {
    const float share = heaviest > 0 && j < group.width ? group.h[j] / heaviest : 1.0f;
    h[j * kTile] = share > kLeastImportance ? share : kLeastImportance;
  }
}

// Fills u with |x| / max |x|. Lanes without a group, and groups of zeros (bit set in the result), get a group of their own.
static bool load_tile(Tile& t, const SearchSettings& settings, const SearchGroup* groups, int count, bool weighted,
                      bool capped, uint32_t* zeros) {
  const int length = t.length;
  float* sizes = reinterpret_cast<float*>(t.sizes);
  for (int lane = 0; lane < kTile; lane++) {
    const SearchGroup& group = groups[lane < count ? lane : 0];
    for (int j = 0; j < group.width; j++) sizes[j * kTile + lane] = group.x[j];
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
  for (int lane = 0; lane < count; lane++) {
    const SearchGroup& group = groups[lane];
    int16_t* pulses = group.pulses;
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
    for (int j = 0; j < group.width; j++) {
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
