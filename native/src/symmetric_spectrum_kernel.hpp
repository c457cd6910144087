// The vector kernels of symmetric spectra over one instruction set, for the symmetric_spectrum.*.cpp files. `S` gives
// the vector V of N doubles with load, store, set1, fma, sum, and load_from / store_from, which leave out the first
// `skip` lanes; for chains of sweeps max, select_less (a < b ? x : y), shift_in (lanes move up by one, a new one enters at
// lane 0) and last.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "symmetric_spectrum.hpp"

namespace surprisal {
namespace {

// Below this the square of a length is lost to underflow; the matrix was scaled so that such lengths do not count.
constexpr double kNoLength = 1e-280;

// Columns that are factored with plain reflections before the rest of a panel sees them.
constexpr int64_t kInner = 8;

// beta and factor of the reflection that maps (alpha, x) with |x|^2 = squares to (beta, 0); v = x * scale. factor = 0
// where nothing is to be done.
struct ReflectionScalars {
  double beta, factor, scale;
};

inline ReflectionScalars reflection_scalars(double alpha, double squares) {
  const double total = alpha * alpha + squares;
  if (squares == 0 || total < kNoLength) return {alpha, 0, 0};
  const double length = std::sqrt(total);
  const double beta = alpha < 0 ? length : -length;
  return {beta, (beta - alpha) / beta, 1 / (alpha - beta)};
}

template <class S>
double squared_length(const double* x, int64_t count) {
  typename S::V sum[4] = {S::set1(0), S::set1(0), S::set1(0), S::set1(0)};
  int64_t l = 0;
  for (; l + 4 * S::N <= count; l += 4 * S::N) {
    for (int q = 0; q < 4; q++) {
      const typename S::V v = S::load(x + l + q * S::N);
      sum[q] = S::fma(v, v, sum[q]);
    }
  }
  for (; l < count; l += S::N) {
    const typename S::V v = S::load(x + l);
    sum[0] = S::fma(v, v, sum[0]);
  }
  return S::sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Inner products of kLeft vectors at x with kRight at y, all `stride` apart.
template <class S, int kLeft, int kRight>
inline __attribute__((always_inline)) void inner_products(const double* x, const double* y, int64_t stride,
                                                          int64_t count, double (&out)[kLeft][kRight]) {
  using V = typename S::V;
  V sum[kLeft][kRight];
  for (int i = 0; i < kLeft; i++) {
    for (int j = 0; j < kRight; j++) sum[i][j] = S::set1(0);
  }
  for (int64_t l = 0; l < count; l += S::N) {
    V left[kLeft];
#pragma GCC unroll 4
    for (int i = 0; i < kLeft; i++) left[i] = S::load(x + i * stride + l);
#pragma GCC unroll 4
    for (int j = 0; j < kRight; j++) {
      const V right = S::load(y + j * stride + l);
#pragma GCC unroll 4
      for (int i = 0; i < kLeft; i++) sum[i][j] = S::fma(left[i], right, sum[i][j]);
    }
  }
  for (int i = 0; i < kLeft; i++) {
    for (int j = 0; j < kRight; j++) out[i][j] = S::sum(sum[i][j]);
  }
}

// y_j -= sum over k < kInner of x_k d[k][j] for two vectors y.
template <class S>
inline __attribute__((always_inline)) void subtract_combinations(const double* x, double* y, int64_t stride,
                                                                 int64_t count, const double (&d)[kInner][2]) {
  using V = typename S::V;
  V factor[kInner][2];
  for (int k = 0; k < kInner; k++) {
    for (int j = 0; j < 2; j++) factor[k][j] = S::set1(-d[k][j]);
  }
  for (int64_t l = 0; l < count; l += S::N) {
    V first = S::load(y + l), second = S::load(y + stride + l);
#pragma GCC unroll 8
    for (int k = 0; k < kInner; k++) {
      const V left = S::load(x + k * stride + l);
      first = S::fma(left, factor[k][0], first);
      second = S::fma(left, factor[k][1], second);
    }
    S::store(y + l, first);
    S::store(y + stride + l, second);
  }
}

// Makes column j of the panel the vector of a reflection, entries below row `block` of it alone; its part of R, row j
// included, goes to r.
template <class S>
double make_reflection(double* column, int64_t j, int64_t block, int64_t count, int64_t rows, double* r) {
  if (j >= rows) {
    for (int64_t i = block; i < count; i++) {
      if (i < rows) r[i] = column[i];
      column[i] = 0;
    }
    return 0;
  }
  for (int64_t i = block; i < j; i++) {
    r[i] = column[i];
    column[i] = 0;
  }
  const double alpha = column[j];
  column[j] = 0;
  const ReflectionScalars made = reflection_scalars(alpha, squared_length<S>(column + block, count - block));
  const typename S::V scale = S::set1(made.scale);
  for (int64_t l = block; l < count; l += S::N) S::store(column + l, scale * S::load(column + l));
  column[j] = 1;
  r[j] = made.beta;
  return made.factor;
}

// Applies the reflection of column j to the columns of its block that follow, j < c < last.
template <class S>
void apply_to_block(double* panel, int64_t stride, int64_t j, int64_t last, int64_t block, int64_t count,
                    double factor) {
  using V = typename S::V;
  const double* v = panel + j * stride;
  for (int64_t c = j + 1; c < last; c++) {
    double* column = panel + c * stride;
    V sum[2] = {S::set1(0), S::set1(0)};
    int64_t l = block;
    for (; l + 2 * S::N <= count; l += 2 * S::N) {
      sum[0] = S::fma(S::load(v + l), S::load(column + l), sum[0]);
      sum[1] = S::fma(S::load(v + l + S::N), S::load(column + l + S::N), sum[1]);
    }
    for (; l < count; l += S::N) sum[0] = S::fma(S::load(v + l), S::load(column + l), sum[0]);
    const V times = S::set1(-factor * S::sum(sum[0] + sum[1]));
    for (l = block; l < count; l += S::N) S::store(column + l, S::fma(times, S::load(v + l), S::load(column + l)));
  }
}

// Columns first and first + 1 of the panel become Q' times them, Q the reflections of one block with triangle t.
template <class S>
void apply_block(double* panel, int64_t stride, int64_t block, int64_t first, int64_t count, const double* t) {
  double inner[kInner][2];
  const double* v = panel + block * stride + block;
  double* columns = panel + first * stride + block;
  for (int64_t k = 0; k < kInner; k += 4) {
    double part[4][2];
    inner_products<S, 4, 2>(v + k * stride, columns, stride, count - block, part);
    for (int i = 0; i < 4; i++) {
      for (int c = 0; c < 2; c++) inner[k + i][c] = part[i][c];
    }
  }
  double d[kInner][2];
  for (int64_t k = 0; k < kInner; k++) {
    for (int c = 0; c < 2; c++) {
      d[k][c] = 0;
      for (int64_t i = 0; i <= k; i++) d[k][c] += t[(block + i) * kBand + block + k] * inner[i][c];
    }
  }
  subtract_combinations<S>(v, columns, stride, count - block, d);
}

// Columns [from, last) of T, rows from `first` on: T(0..j-1, j) = -factor_j T(0..j-1, 0..j-1) V' v_j, products(i, j) = v_i' v_j.
inline void extend_triangle(double* t, const double* products, const double* factors, int64_t first, int64_t from,
                            int64_t last) {
  for (int64_t j = from; j < last; j++) {
    for (int64_t i = first; i < j; i++) {
      double sum = 0;
      for (int64_t l = i; l < j; l++) sum += t[i * kBand + l] * products[j * kBand + l];
      t[i * kBand + j] = -factors[j] * sum;
    }
    t[j * kBand + j] = factors[j];
  }
}

template <class S>
void factor_panel(double* panel, int64_t stride, int64_t rows, double* r, double* t) {
  const int64_t count = (rows + 7) / 8 * 8;
  double factors[kBand];
  double products[kBand * kBand];
  std::memset(products, 0, sizeof products);
  std::memset(t, 0, sizeof(double) * kBand * kBand);
  for (int64_t block = 0; block < kBand; block += kInner) {
    // Rows above the block hold R by now.
    for (int64_t j = block; j < block + kInner; j++) {
      double* column = panel + j * stride;
      for (int64_t i = 0; i < std::min(block, rows); i++) {
        r[j * kBand + i] = column[i];
        column[i] = 0;
      }
      if (block >= rows) {
        factors[j] = 0;
        continue;
      }
      factors[j] = make_reflection<S>(column, j, block, count, rows, r + j * kBand);
      if (factors[j] != 0) apply_to_block<S>(panel, stride, j, block + kInner, block, count, factors[j]);
    }
    if (block >= rows) continue;
    const double* v = panel + block * stride;
    for (int64_t i = 0; i < kInner; i += 4) {
      for (int64_t l = 0; l <= block + i; l += 4) {
        double part[4][4];
        inner_products<S, 4, 4>(v + i * stride + block, panel + l * stride + block, stride, count - block, part);
        for (int a = 0; a < 4; a++) {
          for (int b = 0; b < 4; b++) products[(block + i + a) * kBand + l + b] = part[a][b];
        }
      }
    }
    extend_triangle(t, products, factors, block, block, block + kInner);
    for (int64_t c = block + kInner; c < kBand; c += 2) apply_block<S>(panel, stride, block, c, count, t);
  }
  std::memset(t, 0, sizeof(double) * kBand * kBand);
  extend_triangle(t, products, factors, 0, 0, kBand);
}

template <class S>
void add_inner_products(const double* x, const double* y, int64_t stride, int64_t count, double* g) {
  for (int64_t i = 0; i < kBand; i += 4) {
    for (int64_t j = 0; j <= i; j += 4) {
      double part[4][4];
      inner_products<S, 4, 4>(x + i * stride, y + j * stride, stride, count, part);
      for (int a = 0; a < 4; a++) {
        for (int b = 0; b < 4; b++) g[(i + a) * kBand + j + b] += part[a][b];
      }
    }
  }
}

template <class S>
void middle_factor(const double* t, double* g, double* m) {
  double gt[kBand * kBand];
  for (int64_t i = 0; i < kBand; i++) {
    for (int64_t j = i + 1; j < kBand; j++) g[i * kBand + j] = g[j * kBand + i];
  }
  for (int64_t i = 0; i < kBand; i++) {
    double* row = gt + i * kBand;
    for (int64_t j = 0; j < kBand; j++) row[j] = 0;
    for (int64_t l = 0; l < kBand; l++) {
      const double factor = g[i * kBand + l];
      for (int64_t j = l; j < kBand; j++) row[j] += factor * t[l * kBand + j];
    }
  }
  for (int64_t i = 0; i < kBand; i++) {
    double* row = m + i * kBand;
    for (int64_t j = 0; j < kBand; j++) row[j] = 0;
    for (int64_t l = 0; l <= i; l++) {
      const double factor = -0.5 * t[l * kBand + i];
      for (int64_t j = 0; j < kBand; j++) row[j] += factor * gt[l * kBand + j];
    }
  }
}

// The same steps as src/linalg/symmetric-eigenvalues.ts: from the last row upwards, so that rows stay contiguous.
template <class S>
void reduce_directly(double* a, int64_t n, double* diagonal, double* off, double* scratch) {
  using V = typename S::V;
  double* v = scratch;
  double* p = scratch + n;
  for (int64_t last = n - 1; last >= 2; last--) {
    double* row = a + last * n;
    diagonal[last] = row[last];
    double squares = 0;
    for (int64_t j = 0; j < last - 1; j++) squares += row[j] * row[j];
    const ReflectionScalars made = reflection_scalars(row[last - 1], squares);
    off[last - 1] = made.beta;
    if (made.factor == 0) continue;
    for (int64_t j = 0; j < last - 1; j++) v[j] = made.scale * row[j];
    v[last - 1] = 1;
    for (int64_t i = 0; i < last; i++) {
      const double* entries = a + i * n;
      const double vi = v[i];
      const V factor = S::set1(vi);
      V sum[2] = {S::set1(0), S::set1(0)};
      int64_t j = 0;
      for (; j + 2 * S::N <= i; j += 2 * S::N) {
        for (int q = 0; q < 2; q++) {
          const V entry = S::load(entries + j + q * S::N);
          sum[q] = S::fma(entry, S::load(v + j + q * S::N), sum[q]);
          S::store(p + j + q * S::N, S::fma(entry, factor, S::load(p + j + q * S::N)));
        }
      }
      double total = S::sum(sum[0] + sum[1]);
      for (; j < i; j++) {
        total += entries[j] * v[j];
        p[j] += entries[j] * vi;
      }
      p[i] = total + entries[i] * vi;
    }
    double product = 0;
    for (int64_t i = 0; i < last; i++) {
      p[i] *= made.factor;
      product += p[i] * v[i];
    }
    const double half = 0.5 * made.factor * product;
    for (int64_t i = 0; i < last; i++) p[i] -= half * v[i];
    for (int64_t i = 0; i < last; i++) {
      double* entries = a + i * n;
      const V vi = S::set1(-v[i]), pi = S::set1(-p[i]);
      int64_t j = 0;
      for (; j + S::N <= i + 1; j += S::N) {
        const V entry = S::fma(vi, S::load(p + j), S::load(entries + j));
        S::store(entries + j, S::fma(pi, S::load(v + j), entry));
      }
      for (; j <= i; j++) entries[j] -= v[i] * p[j] + p[i] * v[j];
    }
  }
  if (n > 1) {
    diagonal[1] = a[n + 1];
    off[0] = a[n];
  }
  if (n > 0) diagonal[0] = a[0];
}

// ---- chasing: blocks of kBand x kBand inside the band, column c at block + c * (kBandStride - 1).

constexpr int64_t kBlockStride = kBandStride - 1;

template <class S>
struct BlockVector {
  static constexpr int kParts = static_cast<int>(kBand) / S::N;
  typename S::V part[kParts];

  void load(const double* p) {
#pragma GCC unroll 16
    for (int q = 0; q < kParts; q++) part[q] = S::load(p + q * S::N);
  }
  void store(double* p) const {
#pragma GCC unroll 16
    for (int q = 0; q < kParts; q++) S::store(p + q * S::N, part[q]);
  }
  void zero() {
#pragma GCC unroll 16
    for (int q = 0; q < kParts; q++) part[q] = S::set1(0);
  }
  typename S::V times(const BlockVector& other) const {
    typename S::V sum = part[0] * other.part[0];
#pragma GCC unroll 16
    for (int q = 1; q < kParts; q++) sum = S::fma(part[q], other.part[q], sum);
    return sum;
  }
};

// Turns x [kBand] into the vector of a reflection; the result is what x[0] becomes.
template <class S>
inline double reflect_vector(double* x, Reflection* made) {
  const double alpha = x[0];
  x[0] = 0;
  BlockVector<S> v;
  v.load(x);
  const ReflectionScalars scalars = reflection_scalars(alpha, S::sum(v.times(v)));
  const typename S::V scale = S::set1(scalars.scale);
#pragma GCC unroll 16
  for (int q = 0; q < BlockVector<S>::kParts; q++) v.part[q] = scale * v.part[q];
  v.store(made->v);
  made->v[0] = 1;
  made->factor = scalars.factor;
  return scalars.beta;
}

// D <- (I - f v v') D (I - f v v'), of the diagonal block the lower triangle.
template <class S>
void reflect_diagonal(double* block, const Reflection& by) {
  using V = typename S::V;
  constexpr int kParts = BlockVector<S>::kParts;
  BlockVector<S> v, y;
  v.load(by.v);
  y.zero();
  alignas(64) double inner[kBand];
#pragma GCC unroll 16
  for (int first = 0; first < kParts; first++) {
    for (int c = 0; c < S::N; c++) {
      const int64_t column = first * S::N + c;
      const double* entries = block + column * kBlockStride;
      const V factor = S::set1(by.v[column]);
      const V top = S::load_from(entries + first * S::N, c);
      V sum = S::load_from(entries + first * S::N, c + 1) * v.part[first];
      y.part[first] = S::fma(top, factor, y.part[first]);
#pragma GCC unroll 16
      for (int q = first + 1; q < kParts; q++) {
        const V entry = S::load(entries + q * S::N);
        sum = S::fma(entry, v.part[q], sum);
        y.part[q] = S::fma(entry, factor, y.part[q]);
      }
      inner[column] = S::sum(sum);
    }
  }
  BlockVector<S> w;
  w.load(inner);
  const V factor = S::set1(by.factor);
#pragma GCC unroll 16
  for (int q = 0; q < kParts; q++) w.part[q] = factor * (w.part[q] + y.part[q]);
  const V half = S::set1(-0.5 * by.factor * S::sum(w.times(v)));
  alignas(64) double combined[kBand];
#pragma GCC unroll 16
  for (int q = 0; q < kParts; q++) w.part[q] = S::fma(half, v.part[q], w.part[q]);
  w.store(combined);
#pragma GCC unroll 16
  for (int first = 0; first < kParts; first++) {
    for (int c = 0; c < S::N; c++) {
      const int64_t column = first * S::N + c;
      double* entries = block + column * kBlockStride;
      const V vc = S::set1(-by.v[column]), wc = S::set1(-combined[column]);
      const V top = S::load_from(entries + first * S::N, c);
      S::store_from(entries + first * S::N, c, S::fma(vc, w.part[first], S::fma(wc, v.part[first], top)));
#pragma GCC unroll 16
      for (int q = first + 1; q < kParts; q++) {
        const V entry = S::load(entries + q * S::N);
        S::store(entries + q * S::N, S::fma(vc, w.part[q], S::fma(wc, v.part[q], entry)));
      }
    }
  }
}

// `column`: the band column whose entries 2 .. kBand below the diagonal go.
template <class S>
void begin_chase(double* column, Reflection* made) {
  alignas(64) double x[kBand];
  std::memcpy(x, column + 1, sizeof x);
  const double beta = reflect_vector<S>(x, made);
  column[1] = beta;
  std::memset(column + 2, 0, sizeof(double) * (kBand - 1));
  if (made->factor != 0) reflect_diagonal<S>(column + kBandStride, *made);
}

template <class S>
void chase(double* column, const Reflection* before, Reflection* made) {
  using V = typename S::V;
  using Vector = BlockVector<S>;
  constexpr int kParts = Vector::kParts;
  // Entry (r, c) is A(s + r, s - kBand + c), s the first row of the block.
  double* block = column - kBand * kBandStride + kBand;
  Vector u;
  u.zero();
  for (int64_t c = 0; c < kBand; c++) {
    const V factor = S::set1(before->v[c]);
    const double* entries = block + c * kBlockStride;
#pragma GCC unroll 16
    for (int q = 0; q < kParts; q++) u.part[q] = S::fma(S::load(entries + q * S::N), factor, u.part[q]);
  }
  const V factor_before = S::set1(-before->factor);
#pragma GCC unroll 16
  for (int q = 0; q < kParts; q++) u.part[q] = factor_before * u.part[q];
  alignas(64) double x[kBand];
  Vector first;
  first.load(block);
#pragma GCC unroll 16
  for (int q = 0; q < kParts; q++) first.part[q] = first.part[q] + u.part[q];
  first.store(x);
  const double beta = reflect_vector<S>(x, made);
  std::memset(block, 0, sizeof x);
  block[0] = beta;
  Vector v;
  v.load(made->v);
  // Column c becomes e + u v'(c) - factor (v' (e + u v'(c))) v.
  const double along = S::sum(u.times(v));
  for (int64_t c = 1; c < kBand; c++) {
    double* entries = block + c * kBlockStride;
    Vector e;
    e.load(entries);
    const double inner = S::sum(e.times(v)) + along * before->v[c];
    const V right = S::set1(before->v[c]), left = S::set1(-made->factor * inner);
#pragma GCC unroll 16
    for (int q = 0; q < kParts; q++) e.part[q] = S::fma(left, v.part[q], S::fma(right, u.part[q], e.part[q]));
    e.store(entries);
  }
  if (made->factor != 0) reflect_diagonal<S>(column, *made);
}

// ---- sweeps on a tridiagonal matrix, lane k two entries behind lane k - 1.

// A squared coupling is at least this, so that nothing is divided by 0; its root is no part of the rounding of 1.
constexpr double kLeastCoupling = 1e-280;
// Below this cosine the limit of the recurrence holds to the last digit.
constexpr double kLeastCosine = 1e-100;

template <class S>
struct SweepLanes {
  typename S::V shift, lane;  // lane: 2 k
  typename S::V c, s, gamma, p, d, e;

  // Lane k does step t - 2 k on what lane k - 1 left one tick ago; d_next and e_next enter at lane 0. Step i takes
  // d[i + 1] and e[i] and gives d[i] and e[i - 1]. With kEdge lanes wait for step from - 1, which makes the first
  // gamma, and end with step `to`, which gives the last entry.
  template <bool kEdge>
  inline __attribute__((always_inline)) void tick(double d_next, double e_next, double t, double from, double to) {
    using V = typename S::V;
    const V alpha = S::shift_in(d, d_next);
    const V b = S::max(S::shift_in(e, e_next), S::set1(kLeastCoupling));
    const V r = p + b;
    const V inverse = S::set1(1) / r;
    const V stretch = r / p;
    V new_e = s * r;
    const V new_c = p * inverse;
    const V new_s = b * inverse;
    const V new_gamma = S::fma(new_c, alpha - shift, S::set1(0) - new_s * gamma);
    V new_d = gamma + (alpha - new_gamma);
    const V new_p = S::select_less(new_c, S::set1(kLeastCosine), c * r, new_gamma * new_gamma * stretch);
    if (!kEdge) {
      c = new_c, s = new_s, gamma = new_gamma, p = new_p;
    } else {
      const V step = S::set1(t) - lane;
      const V first = S::set1(from - 1.5), last = S::set1(to - 0.5);
      new_e = S::select_less(step, last, new_e, s * p);
      new_d = S::select_less(step, last, new_d, shift + gamma);
      c = S::select_less(step, first, c, new_c);
      s = S::select_less(step, first, s, new_s);
      gamma = S::select_less(step, first, gamma, new_gamma);
      p = S::select_less(step, first, p, new_p);
    }
    d = new_d;
    e = new_e;
  }
};

template <class S>
void sweep_chain(double* d, double* e, int64_t from, int64_t to, const double* shifts) {
  constexpr int64_t kLag = 2 * (S::N - 1);
  SweepLanes<S> lanes;
  double twice[S::N];
  for (int k = 0; k < S::N; k++) twice[k] = 2 * k;
  lanes.shift = S::load(shifts);
  lanes.lane = S::load(twice);
  lanes.c = lanes.p = S::set1(1);
  lanes.s = lanes.gamma = lanes.d = lanes.e = S::set1(0);
  const auto edge = [&](int64_t t) {
    const double d_next = t + 1 <= to ? d[t + 1] : 0;
    const double e_next = t >= from && t < to ? e[t] : 0;
    lanes.template tick<true>(d_next, e_next, static_cast<double>(t), static_cast<double>(from),
                              static_cast<double>(to));
    const int64_t done = t - kLag;
    if (done >= from) d[done] = S::last(lanes.d);
    if (done > from) e[done - 1] = S::last(lanes.e);
  };
  int64_t t = from - 1;
  for (; t < std::min(to, from + kLag + 1); t++) edge(t);
  for (; t < to; t++) {
    lanes.template tick<false>(d[t + 1], e[t], 0, 0, 0);
    d[t - kLag] = S::last(lanes.d);
    e[t - kLag - 1] = S::last(lanes.e);
  }
  for (; t <= to + kLag; t++) edge(t);
}

template <class S>
constexpr SpectrumKernels spectrum_kernels_of() {
  static_assert(kBand % 8 == 0 && kInner % 4 == 0, "vectors and blocks must fit the band");
  return {factor_panel<S>, add_inner_products<S>, middle_factor<S>, reduce_directly<S>, begin_chase<S>, chase<S>,
          S::N, sweep_chain<S>};
}

}  // namespace
}  // namespace surprisal
