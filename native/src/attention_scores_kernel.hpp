// One block of queries against all its keys, for the vectors V of an instruction set: tiles of scores by small matrix
// products in registers, folded at once into running softmax sums.
#pragma once
#include <math.h>
#include <stdint.h>

#include "attention_scores.hpp"
#include "exp_polynomials.hpp"

namespace surprisal {
namespace {

// Panels whose scores are held at once for a group of queries.
constexpr int64_t kTilePanels = 8;

// The product of a group of queries with a panel of keys lives in kRows x kVectors registers.
template <class V, int kRows, int kVectors, int kDegree>
struct ScoreTile {
  using T = typename V::T;
  using R = typename V::R;
  static constexpr int64_t kPanel = static_cast<int64_t>(kVectors) * V::N;
  static constexpr int64_t kTile = kTilePanels * kPanel;

  struct RowState {
    double first, max, z, a, q;
  };

  static void pack_keys(const void* keys, int64_t stride, int64_t count, int64_t head_dim, void* panel) {
    const T* in = static_cast<const T*>(keys);
    T* out = static_cast<T*>(panel);
    for (int64_t j = 0; j < kPanel; j++) {
      for (int64_t d = 0; d < head_dim; d++) out[d * kPanel + j] = j < count ? in[j * stride + d] : T(0);
    }
  }

  static void pack_queries(const void* queries, int64_t stride, int64_t count, int64_t head_dim, void* group) {
    const T* in = static_cast<const T*>(queries);
    T* out = static_cast<T*>(group);
    for (int64_t r = 0; r < kRows; r++) {
      for (int64_t d = 0; d < head_dim; d++) out[d * kRows + r] = r < count ? in[r * stride + d] : T(0);
    }
  }

  // scores[r * kTile + j] = sum over d of queries[d][r] panel[d][j], added in the order of d.
  static void multiply(const T* queries, const T* panel, int64_t head_dim, T* scores) {
    R sum[kRows][kVectors];
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) sum[r][v] = V::set1(0);
    }
    for (int64_t d = 0; d < head_dim; d++) {
      R key[kVectors];
      for (int v = 0; v < kVectors; v++) key[v] = V::load(panel + d * kPanel + v * V::N);
      for (int r = 0; r < kRows; r++) {
        const R query = V::set1(queries[d * kRows + r]);
        for (int v = 0; v < kVectors; v++) sum[r][v] = V::fma(query, key[v], sum[r][v]);
      }
    }
    for (int r = 0; r < kRows; r++) {
      for (int v = 0; v < kVectors; v++) V::store(scores + r * kTile + v * V::N, sum[r][v]);
    }
  }

  // tanh to the accuracy of T: from e^u with u = -2|x|, near 0 from the polynomial of e^u - 1, which does not cancel.
  static inline R tanh(R x) {
    const R zero = V::set1(0);
    const R twice = x + x;
    const R u = V::min(twice, zero - twice);
    R d[1] = {V::max(V::set1(V::kExpLow), u)};
    R e[1];
    V::template exp<1, kDegree>(d, e);
    const R one = V::set1(1);
    R tail = V::set1(0);
    if constexpr (sizeof(T) == 4) {
      for (int i = 4; i >= 0; i--) tail = V::fma(tail, u, V::set1(kExp32Degree6[i]));
    } else {
      for (int i = 9; i >= 0; i--) tail = V::fma(tail, u, V::set1(kExp64[i]));
    }
    const R near = V::fma(u * u, tail, u);
    const R below = V::choose_above(u, V::set1(T(-0.34)), near, e[0] - one);
    const R size = (zero - below) / (below + V::set1(2));
    // The last sum keeps a NaN or an infinite score visible.
    return V::choose_above(x, zero, size, zero - size) + (x - x);
  }

  // Folds columns [from, to) of one row's products into its sums.
  static void fold(T* scores, int64_t from, int64_t to, const ScoreRows& rows, double divisor, RowState& state) {
    const int64_t begin = from / V::N * V::N;
    const int64_t end = (to + V::N - 1) / V::N * V::N;
    T factor = static_cast<T>(rows.scale / divisor);
    if (rows.softcap > 0) {
      const R inner = V::set1(static_cast<T>(rows.scale / rows.softcap));
      const R outer = V::set1(static_cast<T>(rows.softcap / divisor));
      for (int64_t j = begin; j < end; j += V::N) V::store(scores + j, outer * tanh(V::load(scores + j) * inner));
      factor = 1;
    }
    const T nothing = factor < 0 ? static_cast<T>(INFINITY) : static_cast<T>(-INFINITY);
    for (int64_t j = begin; j < from; j++) scores[j] = nothing;
    for (int64_t j = to; j < end; j++) scores[j] = nothing;
    const R multiplier = V::set1(factor);
    R greatest = V::set1(static_cast<T>(-INFINITY));
    for (int64_t j = begin; j < end; j += V::N) greatest = V::max(greatest, V::load(scores + j) * multiplier);
    const double top = V::largest(greatest);
    if (!(top > -INFINITY)) {
      for (int64_t j = from; j < to; j++) {
        if (scores[j] != scores[j]) state.z = NAN;
      }
      return;
    }
    if (top > state.max) {
      if (state.z > 0) {
        const double shift = state.max - top;
        const double shrink = ::exp(shift);
        state.q = shrink * (state.q + shift * (2 * state.a + shift * state.z));
        state.a = shrink * (state.a + shift * state.z);
        state.z *= shrink;
      }
      state.max = top;
    }
    if (rows.moments) {
      add<true>(scores, begin, end, multiplier, state);
    } else {
      add<false>(scores, begin, end, multiplier, state);
    }
  }

  // The largest score has d = 0 and e = 1 exactly: products are rounded before the reference is taken away. Z takes
  // every register in double, so that this 1 does not swallow its lane. A and Q have terms of one sign: a few of them
  // may be added in T before.
  template <bool kMoments>
  static inline void add(const T* scores, int64_t begin, int64_t end, R multiplier, RowState& state) {
    const R low = V::set1(V::kExpLow);
    const R reference = V::set1(static_cast<T>(state.max));
    typename V::Wide z = V::wide_zero(), a = V::wide_zero(), q = V::wide_zero();
    int64_t j = begin;
    for (; j + 4 * V::N <= end; j += 4 * V::N) {
      R d[4], e[4], w[4];
      for (int k = 0; k < 4; k++) d[k] = V::max(low, V::load(scores + j + k * V::N) * multiplier - reference);
      for (int k = 0; k < 4; k += V::kGroup) V::template exp<V::kGroup, kDegree>(d + k, e + k);
      for (int k = 0; k < 4; k++) {
        z = V::widen_add(z, e[k]);
        w[k] = e[k] * d[k];
      }
      a = V::widen_add(a, (w[0] + w[1]) + (w[2] + w[3]));
      if constexpr (kMoments) {
        q = V::widen_add(q, V::fma(w[0], d[0], w[1] * d[1]) + V::fma(w[2], d[2], w[3] * d[3]));
      }
    }
    for (; j < end; j += V::N) {
      R d[1] = {V::max(low, V::load(scores + j) * multiplier - reference)};
      R e[1];
      V::template exp<1, kDegree>(d, e);
      z = V::widen_add(z, e[0]);
      a = V::widen_add(a, e[0] * d[0]);
      if constexpr (kMoments) q = V::widen_add(q, e[0] * d[0] * d[0]);
    }
    state.z += V::wide_total(z);
    state.a += V::wide_total(a);
    if constexpr (kMoments) state.q += V::wide_total(q);
  }

  static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
  static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

  // A group of queries against one tile of keys.
  static void group_tile(const ScoreRows& rows, const T* queries, int64_t first_row, int64_t count, int64_t tile,
                         RowState* states) {
    const int64_t* from = rows.from + first_row;
    const int64_t* to = rows.to + first_row;
    int64_t low = INT64_MAX, high = 0;
    for (int64_t r = 0; r < count; r++) {
      if (from[r] >= to[r]) continue;
      low = least(low, from[r]);
      high = most(high, to[r]);
    }
    const int64_t start = tile * kTile;
    low = most(low, start);
    high = least(high, start + kTile);
    if (low >= high) return;
    alignas(64) T scores[kRows * kTile];
    const T* panels = static_cast<const T*>(rows.panels);
    for (int64_t p = low / kPanel; p * kPanel < high; p++) {
      multiply(queries, panels + (p - rows.first_panel) * kPanel * rows.head_dim, rows.head_dim,
               scores + (p * kPanel - start));
    }
    for (int64_t r = 0; r < count; r++) {
      int64_t first = most(from[r] - start, 0);
      const int64_t last = least(to[r] - start, kTile);
      if (first >= last) continue;
      T* row = scores + r * kTile;
      const double divisor = rows.divisors[first_row + r];
      if (start == 0 && first == 0) {
        // Key 0 is kept apart: its score is turned like the others, in a fold of its own.
        alignas(64) T lone[V::N] = {};
        lone[0] = row[0];
        RowState key{-INFINITY, -INFINITY, 0, 0, 0};
        fold(lone, 0, 1, rows, divisor, key);
        states[r].first = key.a != key.a || key.z != key.z ? NAN : key.max;
        first = 1;
        if (first >= last) continue;
      }
      fold(row, first, last, rows, divisor, states[r]);
    }
  }

  static void run(const ScoreRows& rows) {
    constexpr int64_t kMostRows = 64;
    int64_t low = INT64_MAX, high = 0;
    for (int64_t r = 0; r < rows.rows; r++) {
      if (rows.from[r] >= rows.to[r]) continue;
      low = least(low, rows.from[r]);
      high = most(high, rows.to[r]);
    }
    RowState states[kMostRows];
    for (int64_t r = 0; r < rows.rows; r++) states[r] = RowState{-INFINITY, -INFINITY, 0, 0, 0};
    const T* queries = static_cast<const T*>(rows.queries);
    for (int64_t tile = low < high ? low / kTile : 0; tile * kTile < high; tile++) {
      for (int64_t first = 0; first < rows.rows; first += kRows) {
        group_tile(rows, queries + first * rows.head_dim, first, least(kRows, rows.rows - first), tile, states + first);
      }
    }
    for (int64_t r = 0; r < rows.rows; r++) {
      const RowState& s = states[r];
      double* out = rows.sums + r * kScoreSums;
      out[0] = s.first;
      out[1] = s.max;
      out[2] = s.z;
      out[3] = s.a;
      out[4] = rows.moments ? s.q : 0;
    }
  }

  static constexpr ScoreKernel kernel() { return ScoreKernel{kPanel, kRows, pack_keys, pack_queries, run}; }
};

template <class V32, class V64, int kRows, int kVectors>
constexpr ScoreKernels make_score_kernels() {
  return ScoreKernels{ScoreTile<V32, kRows, kVectors, 6>::kernel(), ScoreTile<V64, kRows, kVectors, 11>::kernel()};
}

}  // namespace
}  // namespace surprisal
