// The loops of token filters over keys of vector class V and weights of class W (V32 and V64 of vectors_*.hpp); included by
// one translation unit for each instruction set. Sums are in double, in lanes that are added up in a fixed order.
#pragma once
#include <math.h>
#include <stdint.h>

#include "token_filter.hpp"

namespace surprisal {
namespace {

constexpr int64_t kTokenChunk = 2048;

template <class V, class W>
struct TokenLoopsOver {
  using T = typename V::T;
  using R = typename V::R;
  using D = typename W::R;
  static constexpr int64_t kStep = 4 * W::N;

  static bool scan(const T* x, int64_t n, double* largest, double* least, int64_t* finite) {
    const R infinite = V::set1(static_cast<T>(INFINITY));
    const R nothing = V::set1(static_cast<T>(-INFINITY));
    R most[2] = {nothing, nothing};
    R low[2] = {infinite, infinite};
    int64_t below = 0, above = 0, i = 0;
    for (; i + 2 * V::N <= n; i += 2 * V::N) {
      for (int k = 0; k < 2; k++) {
        const R v = V::load(x + i + k * V::N);
        below += __builtin_popcount(V::above(infinite, v));
        above += __builtin_popcount(V::above(v, nothing));
        most[k] = V::max(most[k], v);
        low[k] = V::min(low[k], V::infinite_unless_above(v, nothing));
      }
    }
    double high = V::largest(V::max(most[0], most[1]));
    double deep = V::smallest(V::min(low[0], low[1]));
    for (; i < n; i++) {
      const double v = x[i];
      below += v < INFINITY;
      if (!(v > -INFINITY)) continue;
      above++;
      high = v > high ? v : high;
      deep = v < deep ? v : deep;
    }
    *largest = high;
    *least = deep;
    *finite = above;
    return below == n;
  }

  static TokenSums weigh(const T* x, int64_t n, double max, double inverse, double* weights) {
    const D low = W::set1(W::kExpLow);
    const D depth = W::set1(-kWeightDepth);
    const D shift = W::set1(max);
    const D factor = W::set1(inverse);
    const D one = W::set1(1);
    D sums[4], moments[4];
    for (int k = 0; k < 4; k++) sums[k] = moments[k] = W::set1(0);
    int64_t below = 0;
    double wide[kTokenChunk];
    for (int64_t at = 0; at < n; at += kTokenChunk) {
      const int64_t count = n - at < kTokenChunk ? n - at : kTokenChunk;
      const int64_t padded = (count + kStep - 1) / kStep * kStep;
      for (int64_t i = 0; i < count; i++) wide[i] = x[at + i];
      for (int64_t i = count; i < padded; i++) wide[i] = -INFINITY;
      below -= padded - count;
      for (int64_t i = 0; i < padded; i += kStep) {
        D d[4], e[4];
        for (int k = 0; k < 4; k++) {
          const D raw = (W::load(wide + i + k * W::N) - shift) * factor;
          d[k] = W::choose_above(raw, depth, raw, low);
        }
        for (int k = 0; k < 4; k += W::kGroup) W::template exp<W::kGroup, 11>(d + k, e + k);
        for (int k = 0; k < 4; k++) {
          below += __builtin_popcount(W::above(one, e[k]));
          sums[k] = sums[k] + W::keep_above(one, e[k], e[k]);
          moments[k] = W::fma(e[k], d[k], moments[k]);
          if (weights != nullptr) W::store(wide + i + k * W::N, e[k]);
        }
      }
      if (weights != nullptr) {
        for (int64_t i = 0; i < count; i++) weights[at + i] = wide[i];
      }
    }
    TokenSums out;
    out.count = static_cast<double>(n);
    out.ones = static_cast<double>(n - below);
    out.rest = W::wide_total(W::widen_add(W::widen_add(W::wide_zero(), sums[0] + sums[1]), sums[2] + sums[3]));
    out.moment =
        W::wide_total(W::widen_add(W::widen_add(W::wide_zero(), moments[0] + moments[1]), moments[2] + moments[3]));
    return out;
  }

  static void tally(const T* keys, const double* weights, int64_t n, Ladder ladder, double max, double inverse,
                    TokenSums* rungs) {
    int32_t places[kTokenChunk];
    for (int64_t at = 0; at < n; at += kTokenChunk) {
      const int64_t count = n - at < kTokenChunk ? n - at : kTokenChunk;
      for (int64_t i = 0; i < count; i++) {
        const double step = (ladder.top - static_cast<double>(keys[at + i])) * ladder.scale;
        places[i] = static_cast<int32_t>(step < kRungs - 1 ? step : kRungs - 1);
      }
      for (int64_t i = 0; i < count; i++) {
        TokenSums& rung = rungs[places[i]];
        const double weight = weights[at + i];
        const double d = (static_cast<double>(keys[at + i]) - max) * inverse;
        const double one = weight < 1 ? 0 : 1;
        rung.count += 1;
        rung.ones += one;
        rung.rest += weight < 1 ? weight : 0;
        rung.moment += weight * (d > -kWeightDepth ? d : -kWeightDepth);
      }
    }
  }

  static int64_t find(const T* x, int64_t n, T least, int32_t* positions) {
    const R limit = V::set1(least);
    int64_t count = 0, i = 0;
    for (; i + 2 * V::N <= n; i += 2 * V::N) {
      const uint32_t low = V::not_below(V::load(x + i), limit);
      uint64_t hits = low | static_cast<uint64_t>(V::not_below(V::load(x + i + V::N), limit)) << V::N;
      while (hits != 0) {
        positions[count++] = static_cast<int32_t>(i + __builtin_ctzll(hits));
        hits &= hits - 1;
      }
    }
    for (; i < n; i++) {
      if (x[i] >= least) positions[count++] = static_cast<int32_t>(i);
    }
    return count;
  }

  static double sum_about(const T* x, int64_t n, double max, double mean, bool squared) {
    double lanes[16] = {};
    const auto term = [=](double v) {
      const double d = v > -INFINITY ? v - max - mean : 0;
      return squared ? d * d : d;
    };
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
      for (int k = 0; k < 16; k++) lanes[k] += term(x[i + k]);
    }
    for (; i < n; i++) lanes[i % 16] += term(x[i]);
    double total = 0;
    for (const double lane : lanes) total += lane;
    return total;
  }

  static constexpr TokenLoops<T> table() { return {scan, weigh, tally, find, sum_about}; }
};

}  // namespace
}  // namespace surprisal
