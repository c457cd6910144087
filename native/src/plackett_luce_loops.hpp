// The loops of list losses over vectors V32 and V64 of vectors_*.hpp; included by one translation unit for each instruction
// set. Sums are in double, in lanes that are added up in a fixed order.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "plackett_luce.hpp"

namespace surprisal {
namespace {

constexpr int64_t kRankBlock = 512;
constexpr int kSumLanes = 16;

inline double lane_total(const double* lanes) {
  double sums[kSumLanes];
  memcpy(sums, lanes, sizeof sums);
  for (int width = kSumLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) sums[i] += sums[i + width];
  }
  return sums[0];
}

// Natural logarithms of positive normal numbers: 2 atanh((m - 1) / (m + 1)) + e ln 2, m in [sqrt(1/2), sqrt(2)).
inline void logarithms(const double* x, int64_t n, double* out) {
  constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcd;
  constexpr uint64_t kBias = 0x4338000000000000;
  constexpr double kMagic = 6755399441055744.0;
  for (int64_t i = 0; i < n; i++) {
    uint64_t bits;
    memcpy(&bits, x + i, 8);
    // The exponent is shifted as an unsigned number: no instruction set below AVX-512 shifts signed ones.
    const uint64_t shifted = bits - kRootHalf + (uint64_t{1024} << 52);
    const uint64_t raised = (shifted >> 52) + kBias - 1024;
    const uint64_t scaled = bits - ((shifted & ~((uint64_t{1} << 52) - 1)) - (uint64_t{1024} << 52));
    double m, e;
    memcpy(&m, &scaled, 8);
    memcpy(&e, &raised, 8);
    e -= kMagic;
    const double f = (m - 1) / (m + 1);
    const double z = f * f;
    double p = 1.0 / 21;
    p = p * z + 1.0 / 19;
    p = p * z + 1.0 / 17;
    p = p * z + 1.0 / 15;
    p = p * z + 1.0 / 13;
    p = p * z + 1.0 / 11;
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    out[i] = e * 0x1.62e42fefa39efp-1 + (e * 0x1.abc9e3b39803fp-56 + 2 * (f + f * z * p));
  }
}

template <class V, class W>
struct PlackettLuceLoopsOver {
  using R = typename V::R;
  using D = typename W::R;

  static bool scan(const float* x, int64_t n, float* largest, float* least, int64_t* finite) {
    const R infinite = V::set1(INFINITY);
    const R nothing = V::set1(-INFINITY);
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
    float high = static_cast<float>(V::largest(V::max(most[0], most[1])));
    float deep = static_cast<float>(V::smallest(V::min(low[0], low[1])));
    for (; i < n; i++) {
      below += x[i] < INFINITY;
      if (!(x[i] > -INFINITY)) continue;
      above++;
      high = x[i] > high ? x[i] : high;
      deep = x[i] < deep ? x[i] : deep;
    }
    *largest = high;
    *least = deep;
    *finite = above;
    return below == n;
  }

  static int64_t before(const float* x, int64_t n, int64_t place) {
    const float value = x[place];
    const R limit = V::set1(value);
    int64_t count = 0, i = 0;
    for (; i + V::N <= place; i += V::N) count += __builtin_popcount(V::not_below(V::load(x + i), limit));
    for (; i < place; i++) count += x[i] >= value;
    for (; i + V::N <= n; i += V::N) count += __builtin_popcount(V::above(V::load(x + i), limit));
    for (; i < n; i++) count += x[i] > value;
    return count;
  }

  static int64_t find(const float* x, int64_t n, float value) {
    const R limit = V::set1(value);
    int64_t i = 0;
    while (i + V::N <= n && V::not_below(V::load(x + i), limit) == 0) i += V::N;
    while (i < n && !(x[i] >= value)) i++;
    return i;
  }

  static double weigh(const float* x, int64_t n, float max, float inverse, float* e) {
    constexpr int kStep = 4 * V::N;
    const R low = V::set1(V::kExpLow);
    const R shift = V::set1(max);
    const R factor = V::set1(inverse);
    typename V::Wide sum = V::wide_zero();
    for (int64_t i = 0; i < n; i += kStep) {
      float padded[kStep];
      const bool whole = i + kStep <= n;
      if (!whole) {
        for (int k = 0; k < kStep; k++) padded[k] = i + k < n ? x[i + k] : -INFINITY;
      }
      const float* from = whole ? x + i : padded;
      R d[4], y[4];
      for (int k = 0; k < 4; k++) {
        const R raw = (V::load(from + k * V::N) - shift) * factor;
        d[k] = V::choose_above(raw, low, raw, low);
      }
      for (int k = 0; k < 4; k += V::kGroup) V::template exp<V::kGroup, 6>(d + k, y + k);
      for (int k = 0; k < 4; k++) sum = V::widen_add(sum, y[k]);
      if (e == nullptr) continue;
      for (int k = 0; k < 4; k++) V::store(whole ? e + i + k * V::N : padded + k * V::N, y[k]);
      if (!whole) memcpy(e + i, padded, static_cast<size_t>(n - i) * sizeof(float));
    }
    return V::wide_total(sum);
  }

  static int64_t above(const float* x, int64_t n, float least, int32_t* places) {
    const R limit = V::set1(least);
    int64_t count = 0, i = 0;
    for (; i + 2 * V::N <= n; i += 2 * V::N) {
      const uint64_t low = V::above(V::load(x + i), limit);
      uint64_t hits = low | static_cast<uint64_t>(V::above(V::load(x + i + V::N), limit)) << V::N;
      while (hits != 0) {
        places[count++] = static_cast<int32_t>(i + __builtin_ctzll(hits));
        hits &= hits - 1;
      }
    }
    for (; i < n; i++) {
      if (x[i] > least) places[count++] = static_cast<int32_t>(i);
    }
    return count;
  }

  static void spread(const float* e, int64_t n, float factor, bool overwrite, float* g) {
    if (overwrite) {
      for (int64_t i = 0; i < n; i++) g[i] = e[i] * factor;
    } else {
      for (int64_t i = 0; i < n; i++) g[i] += e[i] * factor;
    }
  }

  // y[i] = e^d[i] of a whole block.
  static void exponentials(const double* d, double* y) {
    const D low = W::set1(W::kExpLow);
    for (int64_t i = 0; i < kRankBlock; i += 4 * W::N) {
      D x[4], e[4];
      for (int k = 0; k < 4; k++) {
        const D raw = W::load(d + i + k * W::N);
        x[k] = W::choose_above(raw, low, raw, low);
      }
      for (int k = 0; k < 4; k += W::kGroup) W::template exp<W::kGroup, 11>(x + k, e + k);
      for (int k = 0; k < 4; k++) W::store(y + i + k * W::N, e[k]);
    }
  }

  struct Block {
    double u[kRankBlock];        // student's logit under the largest
    double t[kRankBlock];        // exponent of the teacher
    double e[kRankBlock];        // e^u
    double w[kRankBlock];
    double suffix[kRankBlock];   // sums of e from here to the last rank
    double logs[kRankBlock];
  };

  static void override_weights(const RankedRow& row, int64_t begin, int64_t count, double* w) {
    if (row.weights == ListWeights::Teacher) return;
    for (int64_t i = 0; i < count; i++) {
      const int64_t rank = begin + i;
      w[i] = row.weights == ListWeights::Uniform ? 1
             : row.weights == ListWeights::Label ? (rank == 0 ? 1 : 0)
                                                 : ldexp(1, static_cast<int>(row.classes - 1 - rank)) - 1;
    }
  }

  // Ranks begin..begin+count-1, the last first: `suffix` comes with the sum behind them and leaves with theirs.
  static void backward(const RankedRow& row, int64_t begin, int64_t count, double* suffix, Block& b, double* weight,
                       double* moment, double* loss) {
    const uint64_t* ranked = row.ranked + begin;
    for (int64_t i = 0; i < count; i++) {
      b.u[i] = static_cast<double>(row.student[static_cast<uint32_t>(ranked[i])]) - row.student_max;
      const double t = logit_of_key(static_cast<uint32_t>(ranked[i] >> 32));
      b.t[i] = (t - row.teacher_max) * row.inverse_temperature;
    }
    for (int64_t i = count; i < kRankBlock; i++) b.u[i] = b.t[i] = -INFINITY;
    exponentials(b.u, b.e);
    exponentials(b.t, b.w);
    for (int64_t i = 0; i < count; i++) {
      weight[i % kSumLanes] += b.w[i];
      moment[i % kSumLanes] += b.w[i] > 0 ? b.w[i] * b.t[i] : 0;
    }
    override_weights(row, begin, count, b.w);
    double sum = *suffix;
    for (int64_t i = count - 1; i >= 0; i--) b.suffix[i] = sum += b.e[i];
    *suffix = sum;
    // Nothing is left where all further classes are masked; they must not weigh, and 1 keeps the arithmetic clean.
    for (int64_t i = 0; i < count; i++) b.suffix[i] = b.suffix[i] > 0 ? b.suffix[i] : 1;
    logarithms(b.suffix, count, b.logs);
    for (int64_t i = 0; i < count; i++) {
      row.ratios[begin + i] = b.w[i] / b.suffix[i];
      b.logs[i] = b.w[i] > 0 ? b.w[i] * (b.logs[i] - b.u[i]) : 0;
      loss[i % kSumLanes] += b.logs[i];
    }
    memcpy(row.exponentials + begin, b.e, static_cast<size_t>(count) * sizeof(double));
    for (int64_t i = 0; i < count; i++) row.shares[begin + i] = static_cast<float>(b.w[i]);
    for (int64_t i = 0; i < count && begin + i < row.ranks; i++) row.contributions[begin + i] = b.logs[i];
  }

  static void write_gradient(const RankedRow& row, double norm) {
    const double factor = norm * row.scale;
    double prefix = 0;
    float g[kRankBlock];
    double sums[kRankBlock];
    for (int64_t begin = 0; begin < row.classes; begin += kRankBlock) {
      const int64_t count = row.classes - begin < kRankBlock ? row.classes - begin : kRankBlock;
      const double* ratios = row.ratios + begin;
      const double* e = row.exponentials + begin;
      const float* shares = row.shares + begin;
      for (int64_t i = 0; i < count; i++) sums[i] = prefix += ratios[i];
      for (int64_t i = 0; i < count; i++) {
        g[i] = static_cast<float>((e[i] * sums[i] - static_cast<double>(shares[i])) * factor);
      }
      const uint64_t* ranked = row.ranked + begin;
      if (row.overwrite) {
        for (int64_t i = 0; i < count; i++) row.gradient[static_cast<uint32_t>(ranked[i])] = g[i];
      } else {
        for (int64_t i = 0; i < count; i++) row.gradient[static_cast<uint32_t>(ranked[i])] += g[i];
      }
    }
  }

  static bool rank(const RankedRow& row, RankedSums* sums) {
    Block block;
    double weight[kSumLanes] = {}, moment[kSumLanes] = {}, loss[kSumLanes] = {};
    double suffix = 0;
    const int64_t last = (row.classes - 1) / kRankBlock * kRankBlock;
    for (int64_t begin = last; begin >= 0; begin -= kRankBlock) {
      const int64_t count = row.classes - begin < kRankBlock ? row.classes - begin : kRankBlock;
      backward(row, begin, count, &suffix, block, weight, moment, loss);
    }
    sums->weight = lane_total(weight);
    sums->moment = lane_total(moment);
    const double norm = row.weights == ListWeights::Teacher ? 1 / sums->weight : 1;
    sums->loss = lane_total(loss) * norm;
    if (!(sums->loss < INFINITY)) return false;
    const int64_t shown = row.ranks < row.classes ? row.ranks : row.classes;
    for (int64_t k = 0; k < shown; k++) row.contributions[k] *= norm;
    if (row.gradient != nullptr) write_gradient(row, norm);
    return true;
  }

  static constexpr PlackettLuceLoops table() { return {scan, before, find, weigh, above, spread, rank}; }
};

}  // namespace
}  // namespace surprisal
