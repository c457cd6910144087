// Tokens of one row in falling order: the first prefix whose sums pass a test, found without sorting them all.
#pragma once
#include <algorithm>
#include <cmath>

#include "aligned_buffer.hpp"
#include "processor.hpp"
#include "token_filter.hpp"

namespace surprisal {
namespace {

// The loops of the processor that is there.
inline const TokenKernels& token_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kTokenAvx512;
    case Simd::Avx2:
      return kTokenAvx2;
    default:
      break;
  }
#endif
  return kTokenBaseline;
}

// So few keys are sorted rather than laid on a ladder.
constexpr int64_t kFewKeys = 256;
// Nats below the top that a ladder resolves; what lies deeper shares its last rung.
constexpr double kLadderNats = 40;

// A key of the descending order: of equal keys the lower position comes first.
struct Item {
  double key;
  int32_t at;
  double weight;
};

inline bool before(const Item& a, const Item& b) { return a.key > b.key || (a.key == b.key && a.at < b.at); }

inline double mass_of(const TokenSums& sums) { return sums.ones + sums.rest; }

// ln z - sum weight d / z: both terms grow from 0 where one token has nearly all mass.
inline double entropy_of(const TokenSums& sums) {
  return std::log1p(sums.ones - 1 + sums.rest) - sums.moment / mass_of(sums);
}

inline TokenSums sum_of(const TokenSums& a, const TokenSums& b) {
  return {a.count + b.count, a.ones + b.ones, a.rest + b.rest, a.moment + b.moment};
}

inline double inverse_of(double temperature) { return std::min(1 / temperature, 1e300); }

// Working space of one thread.
template <class T>
struct Scratch {
  AlignedBuffer<T> logits;
  AlignedBuffer<int32_t> ids;
  AlignedBuffer<int32_t> found;
  AlignedBuffer<int32_t> near;
  AlignedBuffer<T> near_logits;
  AlignedBuffer<double> weights;
  AlignedBuffer<double> scores;
  AlignedBuffer<Item> items;
  AlignedBuffer<double> keys;
  AlignedBuffer<double> key_weights;
  TokenSums rungs[kRungs];
};

// Walks of one row; temperature as it is when the walk begins.
template <class T>
class PrefixWalk {
 public:
  PrefixWalk(Scratch<T>& scratch, int64_t vocabulary, double temperature)
      : scratch_(scratch), vocabulary_(vocabulary), temperature_(temperature), inverse_(inverse_of(temperature)) {}

  // First prefix of n keys, in falling order, that passes: its last token. False when none does. A ladder of rungs finds
  // the few keys among which the prefix ends, and these are sorted. d = (key - center) inverse.
  template <class K, class Passes>
  bool walk(const K* keys, const double* weights, int64_t n, double top, double least, double center, Passes passes,
            Item& last) {
    TokenSums prefix;
    if (n <= kFewKeys) return walk_sorted(keys, weights, nullptr, n, center, prefix, passes, last);
    int rung;
    Ladder ladder;
    if (!climb(keys, weights, n, top, least, center, passes, prefix, ladder, rung)) return false;
    scratch_.keys.reserve(vocabulary_);
    scratch_.key_weights.reserve(vocabulary_);
    scratch_.found.reserve(vocabulary_);
    double* few = scratch_.keys.data();
    double* few_weights = scratch_.key_weights.data();
    int32_t* places = scratch_.found.data();
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
      if (rung_of(ladder, keys[i]) != rung) continue;
      few[count] = keys[i];
      few_weights[count] = weights[i];
      places[count++] = static_cast<int32_t>(i);
    }
    for (int64_t before_narrowing = n; count > kFewKeys && count < before_narrowing;) {
      const auto range = std::minmax_element(few, few + count);
      before_narrowing = count;
      if (!climb(few, few_weights, count, *range.second, *range.first, center, passes, prefix, ladder, rung)) break;
      count = 0;
      for (int64_t i = 0; i < before_narrowing; i++) {
        if (rung_of(ladder, few[i]) != rung) continue;
        few[count] = few[i];
        few_weights[count] = few_weights[i];
        places[count++] = places[i];
      }
    }
    // The rung's sum passes. Added up in another order it may just miss; then the prefix ends with the rung.
    walk_sorted(few, few_weights, places, count, center, prefix, passes, last);
    return true;
  }

 private:
  static int rung_of(Ladder ladder, double key) {
    const double step = (ladder.top - key) * ladder.scale;
    return static_cast<int>(step < kRungs - 1 ? step : kRungs - 1);
  }

  // The first rung after which the prefix passes; `prefix` grows by those before. False when there is none.
  template <class K, class Passes>
  bool climb(const K* keys, const double* weights, int64_t n, double top, double least, double center, Passes passes,
             TokenSums& prefix, Ladder& ladder, int& rung) {
    const double span = std::min(top - least, kLadderNats * temperature_);
    ladder = {top, span > 0 ? std::min(kRungs / span, 1e300) : 1};
    std::fill(scratch_.rungs, scratch_.rungs + kRungs, TokenSums{});
    token_kernels().of(keys).tally(keys, weights, n, ladder, center, inverse_, scratch_.rungs);
    for (rung = 0; rung < kRungs; rung++) {
      if (scratch_.rungs[rung].count == 0) continue;
      const TokenSums after = sum_of(prefix, scratch_.rungs[rung]);
      if (passes(after)) return true;
      prefix = after;
    }
    return false;
  }

  // `last` is left at the token at which the prefix passes, else at the last of all.
  template <class K, class Passes>
  bool walk_sorted(const K* keys, const double* weights, const int32_t* places, int64_t n, double center, TokenSums prefix,
                   Passes passes, Item& last) {
    scratch_.items.reserve(n);
    Item* items = scratch_.items.data();
    for (int64_t i = 0; i < n; i++) {
      items[i] = {static_cast<double>(keys[i]), places == nullptr ? static_cast<int32_t>(i) : places[i], weights[i]};
    }
    std::sort(items, items + n, before);
    for (int64_t i = 0; i < n; i++) {
      prefix.count += 1;
      if (items[i].weight < 1) prefix.rest += items[i].weight;
      else prefix.ones += 1;
      prefix.moment += items[i].weight * std::max(-kWeightDepth, (items[i].key - center) * inverse_);
      last = items[i];
      if (passes(prefix)) return true;
    }
    return false;
  }

  Scratch<T>& scratch_;
  int64_t vocabulary_;
  double temperature_, inverse_;
};

}  // namespace
}  // namespace surprisal
