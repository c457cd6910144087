// The row kernels, written once over a vector type and included by one translation unit an instruction set.
//
// A vector type V (V64 of doubles, V32 of floats) gives: T, R (a register), N (lanes), set1, load, max (the second
// operand when either is NaN), fma, sqrt, exp (of arguments in [kExpLow, 88]; exactly 0 at kExpLow and below),
// above(a, b) and not_below(a, b) (bit masks), keep_above(x, limit, v) (v where x > limit, else 0), sum4 (of all lanes
// of four registers, in double, in a fixed order) and largest. A source S (S64, S32, S16, SB16) gives its V, the degree
// of its exponential, its stored type E, load2 (2 N consecutive elements in two registers, in any order), scalar, and kMinusInfinity.
//
// Accuracy of the float path: lanes add at most kFlush * 4 values before they are flushed to double.
// Where second moments are wanted they are taken about a centre near the mean, so that nothing cancels.
#pragma once
#include <math.h>

#include "row_statistics.hpp"

namespace surprisal {
namespace {

constexpr int64_t kChunk = 4096;
// How far, in nats, the reference may lag behind the running maximum. Log Z and A/Z both carry the lag, and their
// difference is the entropy: the less, the fewer digits of the lanes cancel.
constexpr double kLag = 1.0;

// Lanes add up at most this many registers of their own type before they are flushed to double.
constexpr int kFlush = 8;

// A sum in two steps: `near` in the lanes of R, `far` in double.
template <class V>
struct LaneSum {
  typename V::R near = V::set1(0);
  typename V::Wide far = V::wide_zero();
  void add(typename V::R a, typename V::R b, typename V::R c, typename V::R d) { near = near + ((a + b) + (c + d)); }
  void flush() {
    far = V::widen_add(far, near);
    near = V::set1(0);
  }
  double total() const { return V::wide_total(far); }
};

struct ChunkSums {
  double max, z, a, q, half, square, finite_sum, least;
  int64_t finite_count;
};

// Four exponentials, V::kGroup at a time stage by stage: enough independent work next to each other for the scheduler
// to fill the latencies, and no more registers than there are.
template <class S>
static inline void exp_four(const typename S::V::R* d, typename S::V::R* e) {
  for (int k = 0; k < 4; k += S::V::kGroup) S::V::template exp<S::V::kGroup, S::kDegree>(d + k, e + k);
}

// Sums over n elements (a multiple of 4 N) about `reference`: z = sum e^d with d = x - reference. At level 0 a is
// sum e^d d; at level 1 a and q are the first and second moments of d - centre.
template <class S, int kLevel>
static inline void sum_chunk(const typename S::E* x, int64_t n, typename S::V::T reference, typename S::V::T centre,
                             ChunkSums& out) {
  using V = typename S::V;
  using R = typename V::R;
  const R low = V::set1(V::kExpLow);
  const R shift = V::set1(reference);
  const R middle = V::set1(centre);
  const R nothing = V::set1(static_cast<typename V::T>(-INFINITY));
  R most[4] = {nothing, nothing, nothing, nothing};
  R least = V::set1(static_cast<typename V::T>(INFINITY));
  LaneSum<V> z, a, q, half, square, finite;
  int64_t count = 0;
  for (int64_t i = 0; i < n;) {
    const int64_t end = i + kFlush * 4 * V::N < n ? i + kFlush * 4 * V::N : n;
    for (; i < end; i += 4 * V::N) {
      R v[4], d[4], e[4];
      S::load2(x + i, v[0], v[1]);
      S::load2(x + i + 2 * V::N, v[2], v[3]);
      for (int k = 0; k < 4; k++) {
        most[k] = V::max(most[k], v[k]);
        d[k] = V::max(low, v[k] - shift);
      }
      exp_four<S>(d, e);
      z.add(e[0], e[1], e[2], e[3]);
      if constexpr (kLevel == 0) {
        a.near = a.near + (V::fma(e[0], d[0], e[1] * d[1]) + V::fma(e[2], d[2], e[3] * d[3]));
      } else {
        R w[4], raw[4];
        for (int k = 0; k < 4; k++) {
          d[k] = d[k] - middle;
          w[k] = e[k] * d[k];
          raw[k] = V::keep_above(v[k], nothing, v[k] - shift);
          count += __builtin_popcount(V::above(v[k], nothing));
          least = V::min(least, V::infinite_unless_above(v[k], nothing));
        }
        a.add(w[0], w[1], w[2], w[3]);
        q.near = q.near + (V::fma(w[0], d[0], w[1] * d[1]) + V::fma(w[2], d[2], w[3] * d[3]));
        half.add(V::sqrt(e[0]), V::sqrt(e[1]), V::sqrt(e[2]), V::sqrt(e[3]));
        square.near = square.near + (V::fma(e[0], e[0], e[1] * e[1]) + V::fma(e[2], e[2], e[3] * e[3]));
        finite.add(raw[0], raw[1], raw[2], raw[3]);
      }
    }
    z.flush();
    a.flush();
    if constexpr (kLevel == 1) {
      q.flush();
      half.flush();
      square.flush();
      finite.flush();
    }
  }
  out.max = V::largest(V::max(V::max(most[0], most[1]), V::max(most[2], most[3])));
  out.z = z.total();
  out.a = a.total();
  if constexpr (kLevel == 1) {
    out.q = q.total();
    out.half = half.total();
    out.square = square.total();
    out.finite_sum = finite.total();
    out.finite_count = count;
    out.least = V::smallest(least);
  }
}

template <class S>
static inline double max_chunk(const typename S::E* x, int64_t n) {
  using V = typename S::V;
  using R = typename V::R;
  const R nothing = V::set1(static_cast<typename V::T>(-INFINITY));
  R most[4] = {nothing, nothing, nothing, nothing};
  for (int64_t i = 0; i < n; i += 4 * V::N) {
    R v[4];
    S::load2(x + i, v[0], v[1]);
    S::load2(x + i + 2 * V::N, v[2], v[3]);
    for (int k = 0; k < 4; k++) most[k] = V::max(most[k], v[k]);
  }
  return V::largest(V::max(V::max(most[0], most[1]), V::max(most[2], most[3])));
}

// sum e^(order (x - reference)), reference at least the largest x.
template <class S>
static inline double power_chunk(const typename S::E* x, int64_t n, typename S::V::T reference,
                                 typename S::V::T order) {
  using V = typename S::V;
  using R = typename V::R;
  const R low = V::set1(V::kExpLow);
  const R shift = V::set1(reference);
  const R factor = V::set1(order);
  LaneSum<V> sum;
  for (int64_t i = 0; i < n;) {
    const int64_t end = i + kFlush * 4 * V::N < n ? i + kFlush * 4 * V::N : n;
    for (; i < end; i += 4 * V::N) {
      R v[4];
      S::load2(x + i, v[0], v[1]);
      S::load2(x + i + 2 * V::N, v[2], v[3]);
      for (int k = 0; k < 4; k++) v[k] = V::max(low, factor * (v[k] - shift));
      R e[4];
      exp_four<S>(v, e);
      sum.add(e[0], e[1], e[2], e[3]);
    }
    sum.flush();
  }
  return sum.total();
}

template <class S>
static bool any_hostile(const typename S::E* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const double v = S::scalar(x[i]);
    if (!(v < INFINITY)) return true;
  }
  return false;
}

// The largest T that is not above v: x > v and x > floor_to(v) agree for every x of type T.
template <class T>
static inline T floor_to(double v) {
  T t = static_cast<T>(v);
  if (static_cast<double>(t) > v) t = static_cast<T>(nextafterf(static_cast<float>(t), -INFINITY));
  return t;
}

static inline void insert_top(RowTop& top, double value, int32_t column) {
  int at = top.count;
  while (at > 0) {
    const double other = top.values[at - 1];
    if (other > value || (other == value && top.columns[at - 1] < column)) break;
    at--;
  }
  if (at >= top.capacity) return;
  if (top.count < top.capacity) top.count++;
  for (int i = top.count - 1; i > at; i--) {
    top.values[i] = top.values[i - 1];
    top.columns[i] = top.columns[i - 1];
  }
  top.values[at] = value;
  top.columns[at] = column;
}

// Feeds n elements (a multiple of 4 N), the first in column `column`.
template <class S>
static inline void top_chunk(const typename S::E* x, int64_t n, int64_t column, RowTop& top) {
  using V = typename S::V;
  using R = typename V::R;
  using T = typename V::T;
  for (int64_t i = 0; i < n; i += 2 * V::N) {
    const bool filled = top.count == top.capacity;
    const double least = filled ? top.values[top.capacity - 1] : -INFINITY;
    const R limit = V::set1(floor_to<T>(least));
    R v[2];
    S::load2(x + i, v[0], v[1]);
    // Not-below rather than above: blocks may come out of order, and then an equal value in a lower column wins.
    const uint32_t candidates = filled ? (V::not_below(v[0], limit) | V::not_below(v[1], limit))
                                       : (V::above(v[0], limit) | V::above(v[1], limit));
    if (candidates == 0) continue;
    for (int k = 0; k < 2 * V::N; k++) {
      const double value = S::scalar(x[i + k]);
      if (value > -INFINITY) insert_top(top, value, static_cast<int32_t>(column + i + k));
    }
  }
}

struct RowState {
  double reference;  // -inf until a finite logit was seen
  double z, a, q, half, square;
  double power_reference;
};

// One chunk of n elements, a multiple of 4 N.
template <class S>
static bool fold_chunk(const typename S::E* x, int64_t n, int64_t column, const RowRequest& request, RowState& state,
                       RowSums& sums, RowTop& top) {
  using T = typename S::V::T;
  bool first = false;
  if (state.reference == -INFINITY) {
    const double most = max_chunk<S>(x, n);
    if (!(most > -INFINITY && most < INFINITY)) return !any_hostile<S>(x, n);
    state.reference = most;
    first = true;
  }
  ChunkSums chunk{};
  double centre = 0;
  for (;;) {
    const T reference = static_cast<T>(state.reference);
    if (!request.full) {
      sum_chunk<S, 0>(x, n, reference, T(0), chunk);
    } else {
      if (first) {
        sum_chunk<S, 0>(x, n, reference, T(0), chunk);
        centre = chunk.z > 0 && chunk.z < INFINITY ? chunk.a / chunk.z : 0;
        first = false;
      } else {
        centre = state.a / state.z;
      }
      centre = static_cast<T>(centre);
      sum_chunk<S, 1>(x, n, reference, static_cast<T>(centre), chunk);
    }
    // A NaN makes the sum of e d NaN; +inf shows in the maximum.
    if (!(chunk.max < INFINITY) || chunk.a != chunk.a || !(chunk.z < INFINITY)) {
      if (any_hostile<S>(x, n)) return false;
    }
    if (chunk.max <= state.reference + kLag) break;
    // The maximum grew past what the reference serves: move the reference there and sum this chunk again.
    const double s = state.reference - chunk.max;
    const double scale = ::exp(s);
    state.q = scale * (state.q + s * (2 * state.a + s * state.z));
    state.a = scale * (state.a + s * state.z);
    state.z *= scale;
    state.half *= ::exp(0.5 * s);
    state.square *= scale * scale;
    state.reference = chunk.max;
    // The mean moves with the maximum: find the centre of this chunk anew.
    first = true;
  }
  state.z += chunk.z;
  if (request.full) {
    state.a += chunk.a + centre * chunk.z;
    state.q += chunk.q + centre * (2 * chunk.a + centre * chunk.z);
    state.half += chunk.half;
    state.square += chunk.square;
    if (!(chunk.finite_sum > -INFINITY)) {
      // Finite logits near the end of the range, as masks use: float lanes overflow, doubles do not.
      chunk.finite_sum = 0;
      for (int64_t i = 0; i < n; i++) {
        const double v = S::scalar(x[i]);
        if (v > -INFINITY) chunk.finite_sum += v - state.reference;
      }
    }
    sums.finite_sum += chunk.finite_sum + static_cast<double>(chunk.finite_count) * state.reference;
    sums.finite_count += chunk.finite_count;
    if (chunk.least < sums.least) sums.least = chunk.least;
  } else {
    state.a += chunk.a;
  }
  if (chunk.max > sums.max) sums.max = chunk.max;
  if (request.order_count > 0) {
    if (sums.max > state.power_reference) {
      for (int k = 0; k < request.order_count; k++) {
        if (sums.powers[k] > 0) sums.powers[k] *= ::exp(request.orders[k] * (state.power_reference - sums.max));
      }
      state.power_reference = sums.max;
    }
    for (int k = 0; k < request.order_count; k++) {
      sums.powers[k] += power_chunk<S>(x, n, static_cast<T>(state.power_reference), static_cast<T>(request.orders[k]));
    }
  }
  if (request.top > 0) top_chunk<S>(x, n, column, top);
  return true;
}

// Calls `body(pointer, length, column)` over chunks whose lengths are multiples of 4 N; the last few elements come in
// a buffer filled up with -inf.
template <class S, class Body>
static inline bool for_chunks(const void* row, int64_t columns, Body&& body) {
  const typename S::E* x = static_cast<const typename S::E*>(row);
  constexpr int64_t step = 4 * S::V::N;
  const int64_t whole = columns / step * step;
  for (int64_t at = 0; at < whole; at += kChunk) {
    const int64_t n = whole - at < kChunk ? whole - at : kChunk;
    if (!body(x + at, n, at)) return false;
  }
  if (whole == columns) return true;
  typename S::E rest[step];
  for (int64_t i = 0; i < step; i++) rest[i] = whole + i < columns ? x[whole + i] : S::kMinusInfinity;
  return body(static_cast<const typename S::E*>(rest), step, whole);
}

template <class S>
static bool row_pass(const void* row, int64_t columns, const RowRequest& request, RowSums& sums, RowTop& top) {
  RowState state{-INFINITY, 0, 0, 0, 0, 0, -INFINITY};
  const bool clean = for_chunks<S>(row, columns, [&](const typename S::E* x, int64_t n, int64_t at) {
    return fold_chunk<S>(x, n, top.column_offset + at, request, state, sums, top);
  });
  if (!clean) return false;
  if (state.reference == -INFINITY) return true;
  const double s = state.reference - sums.max;
  const double scale = ::exp(s);
  sums.z = scale * state.z;
  sums.a = scale * (state.a + s * state.z);
  if (request.full) {
    sums.q = scale * (state.q + s * (2 * state.a + s * state.z));
    sums.half = ::exp(0.5 * s) * state.half;
    sums.square = scale * scale * state.square;
  }
  return true;
}

// Number of x with x - max > kSupportDepth, and the least of them.
template <class S>
static int64_t row_support(const void* row, int64_t columns, double max, double& least) {
  const typename S::E* x = static_cast<const typename S::E*>(row);
  int64_t count = 0;
  for (int64_t i = 0; i < columns; i++) {
    const double v = S::scalar(x[i]);
    if (!(v - max > kSupportDepth)) continue;
    count++;
    if (v < least) least = v;
  }
  return count;
}

template <class S>
static int64_t row_count(const void* row, int64_t columns, double target) {
  using V = typename S::V;
  const typename V::R limit = V::set1(floor_to<typename V::T>(target));
  int64_t count = 0;
  for_chunks<S>(row, columns, [&](const typename S::E* x, int64_t n, int64_t) {
    for (int64_t i = 0; i < n; i += 2 * V::N) {
      typename V::R a, b;
      S::load2(x + i, a, b);
      count += __builtin_popcount(V::above(a, limit)) + __builtin_popcount(V::above(b, limit));
    }
    return true;
  });
  return count;
}

// Always in doubles: it serves rows whose varentropy is tiny against their entropy.
template <class S, class S64>
static double row_central(const void* row, int64_t columns, double log_sum_exp, double entropy) {
  using V = typename S64::V;
  using R = typename V::R;
  const R low = V::set1(V::kExpLow);
  const R shift = V::set1(log_sum_exp);
  const R middle = V::set1(entropy);
  double total = 0;
  double wide[kChunk];
  for_chunks<S>(row, columns, [&](const typename S::E* x, int64_t n, int64_t) {
    for (int64_t i = 0; i < n; i++) wide[i] = S::scalar(x[i]);
    LaneSum<V> sum;
    for (int64_t i = 0; i < n; i += 4 * V::N) {
      R d[4], v[4];
      for (int k = 0; k < 4; k++) d[k] = V::max(low, V::load(wide + i + k * V::N) - shift);
      exp_four<S64>(d, v);
      for (int k = 0; k < 4; k++) v[k] = v[k] * (d[k] + middle) * (d[k] + middle);
      sum.add(v[0], v[1], v[2], v[3]);
    }
    sum.flush();
    total += sum.total();
    return true;
  });
  return total;
}

template <class S64, class S32, class S16, class SB16>
constexpr RowKernels make_row_kernels() {
  return RowKernels{
      {row_pass<S64>, row_pass<S32>, row_pass<S16>, row_pass<SB16>},
      {row_count<S64>, row_count<S32>, row_count<S16>, row_count<SB16>},
      {row_central<S64, S64>, row_central<S32, S64>, row_central<S16, S64>, row_central<SB16, S64>},
      {row_support<S64>, row_support<S32>, row_support<S16>, row_support<SB16>},
  };
}

}  // namespace
}  // namespace surprisal
