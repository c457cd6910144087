// The kernels of losses of rows, written once over a vector of doubles and included by one translation unit an
// instruction set. A row is widened to doubles in scratch memory, which stays in the cache.
#pragma once
#include <math.h>

#include "loss_rows.hpp"

namespace surprisal {
namespace {

constexpr double kNothing = -INFINITY;

static inline double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

// Exponentials and sums over a row of scratch memory.
template <class V>
struct Lanes {
  using R = typename V::R;
  static constexpr int64_t kStep = 4 * V::N;

  static double total(const R* sum) {
    double lane[V::N];
    V::store(lane, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    double result = 0;
    for (int i = 0; i < V::N; i++) result += lane[i];
    return result;
  }

  static double largest(const double* s, int64_t padded) {
    R most[4] = {V::set1(kNothing), V::set1(kNothing), V::set1(kNothing), V::set1(kNothing)};
    for (int64_t i = 0; i < padded; i += kStep) {
      for (int k = 0; k < 4; k++) most[k] = V::max(most[k], V::load(s + i + k * V::N));
    }
    return V::largest(V::max(V::max(most[0], most[1]), V::max(most[2], most[3])));
  }

  // e = exp(s - shift), and the sum; NaN when s holds one.
  static double exponentials(const double* s, double* e, int64_t padded, double shift) {
    const R low = V::set1(V::kExpLow);
    const R by = V::set1(shift);
    const R zero = V::set1(0);
    R sum[4] = {zero, zero, zero, zero};
    R seen[4] = {zero, zero, zero, zero};
    for (int64_t i = 0; i < padded; i += kStep) {
      R d[4], p[4];
      for (int k = 0; k < 4; k++) d[k] = V::max(low, V::load(s + i + k * V::N) - by);
      for (int k = 0; k < 4; k += V::kGroup) V::template exp<V::kGroup, 11>(d + k, p + k);
      for (int k = 0; k < 4; k++) {
        seen[k] = seen[k] + d[k];
        sum[k] = sum[k] + p[k];
        V::store(e + i + k * V::N, p[k]);
      }
    }
    // The exponential of a NaN is 0; its argument's sum is not.
    const double check = total(seen);
    return check == check ? total(sum) : NAN;
  }

  // sum of e (a - b) where e > 0
  static double weighted(const double* e, const double* a, const double* b, int64_t padded) {
    const R zero = V::set1(0);
    R sum[4] = {zero, zero, zero, zero};
    for (int64_t i = 0; i < padded; i += kStep) {
      for (int k = 0; k < 4; k++) {
        const int64_t at = i + k * V::N;
        const R weight = V::load(e + at);
        sum[k] = sum[k] + V::keep_above(weight, zero, weight * (V::load(a + at) - V::load(b + at)));
      }
    }
    return total(sum);
  }

  static double plain_sum(const double* s, int64_t count) {
    const int64_t whole = count / kStep * kStep;
    const R zero = V::set1(0);
    R sum[4] = {zero, zero, zero, zero};
    for (int64_t i = 0; i < whole; i += kStep) {
      for (int k = 0; k < 4; k++) sum[k] = sum[k] + V::load(s + i + k * V::N);
    }
    double result = total(sum);
    for (int64_t i = whole; i < count; i++) result += s[i];
    return result;
  }
};

template <class T>
static inline void widen(const T* x, int64_t classes, int64_t padded, double factor, double* s) {
  for (int64_t i = 0; i < classes; i++) s[i] = static_cast<double>(x[i]) * factor;
  for (int64_t i = classes; i < padded; i++) s[i] = kNothing;
}

template <class T>
static inline void add(T& gradient, double value) {
  gradient = static_cast<T>(static_cast<double>(gradient) + value);
}

// gradient += a e
template <class T>
static inline void add_scaled(T* gradient, const double* e, double a, double constant, int64_t classes) {
  for (int64_t j = 0; j < classes; j++) add(gradient[j], a * e[j] + constant);
}

// Cross-entropy and comp-sum: all reads the log-odds against the label.
template <class V, class T>
static double label_row(const LossRow<T>& row, double* s) {
  const int64_t padded = loss_padded(row.classes);
  double* e = s + padded;
  widen(row.student, row.classes, padded, 1, s);
  const double own = s[row.label];
  if (!(own < INFINITY)) return NAN;
  s[row.label] = kNothing;
  const double most = Lanes<V>::largest(s, padded);
  if (most == INFINITY) return NAN;
  const double shift = most == kNothing ? 0 : most;
  const double z = Lanes<V>::exponentials(s, e, padded, shift);
  if (z != z || (most == kNothing && own == kNothing)) return NAN;
  const double against = most == kNothing ? kNothing : most + log(z) - own;
  const double label_loss = softplus(against);
  const double normaliser = own + label_loss;
  if (row.kind == LossKind::CrossEntropy) {
    const double smoothing = row.first;
    const double uniform = smoothing / static_cast<double>(row.classes);
    double loss = label_loss;
    if (smoothing > 0) {
      s[row.label] = own;
      const double sum = static_cast<double>(row.classes) * normaliser - Lanes<V>::plain_sum(s, row.classes);
      loss = (1 - smoothing) * label_loss + uniform * sum;
    }
    if (row.gradient != nullptr) {
      add_scaled(row.gradient, e, row.scale * exp(shift - normaliser), -row.scale * uniform, row.classes);
      add(row.gradient[row.label], row.scale * (smoothing - exp(-softplus(-against))));
    }
    return loss;
  }
  const double tau = row.first;
  const double log_weight = -(tau - 1) * label_loss;
  if (row.gradient != nullptr) {
    const double factor = exp(log_weight + shift - normaliser);
    if (factor < INFINITY) {
      add_scaled(row.gradient, e, row.scale * factor, 0, row.classes);
    } else {
      for (int64_t j = 0; j < row.classes; j++) {
        add(row.gradient[j], j == row.label ? 0 : row.scale * exp(log_weight + s[j] - normaliser));
      }
    }
    add(row.gradient[row.label], -row.scale * exp(log_weight - softplus(-against)));
  }
  return tau == 1 ? label_loss : expm1(log_weight) / (1 - tau);
}

struct Softmax {
  double most, z, log_z;  // log_z includes `most`
};

// A softmax whose exponentials about the maximum lie in e; false for rows that are no distribution.
template <class V>
static inline bool softmax(const double* s, double* e, int64_t padded, Softmax& out) {
  out.most = Lanes<V>::largest(s, padded);
  if (!(out.most > kNothing && out.most < INFINITY)) return false;
  out.z = Lanes<V>::exponentials(s, e, padded, out.most);
  out.log_z = out.most + log(out.z);
  return out.z == out.z;
}

template <class V, class T>
static double forward_kl(const LossRow<T>& row, double* s) {
  const int64_t padded = loss_padded(row.classes);
  double* t = s + padded;
  double* e = t + padded;
  const double factor = 1 / row.first;
  widen(row.student, row.classes, padded, factor, s);
  widen(row.teacher, row.classes, padded, factor, t);
  Softmax own, given;
  if (!softmax<V>(t, e, padded, given)) return NAN;
  const double apart = Lanes<V>::weighted(e, t, s, padded) / given.z;
  for (int64_t j = 0; j < padded; j++) t[j] = e[j];
  if (!softmax<V>(s, e, padded, own)) return NAN;
  if (row.gradient != nullptr) {
    const double a = row.scale * factor / own.z;
    const double b = row.scale * factor / given.z;
    for (int64_t j = 0; j < row.classes; j++) add(row.gradient[j], a * e[j] - b * t[j]);
  }
  return apart + (own.log_z - given.log_z);
}

template <class V, class T>
static double reverse_kl(const LossRow<T>& row, double* s) {
  const int64_t padded = loss_padded(row.classes);
  double* t = s + padded;
  double* e = t + padded;
  const double factor = 1 / row.first;
  widen(row.student, row.classes, padded, factor, s);
  widen(row.teacher, row.classes, padded, factor, t);
  Softmax own, given;
  if (!softmax<V>(t, e, padded, given) || !softmax<V>(s, e, padded, own)) return NAN;
  const double shift = own.log_z - given.log_z;
  const double loss = Lanes<V>::weighted(e, s, t, padded) / own.z - shift;
  if (row.gradient != nullptr) {
    const double a = row.scale * factor / own.z;
    for (int64_t j = 0; j < row.classes; j++) {
      const double value = a * e[j] * (s[j] - t[j] - shift - loss);
      add(row.gradient[j], e[j] > 0 ? value : 0);
    }
  }
  return loss;
}

template <class V, class T>
static double jsd(const LossRow<T>& row, double* s) {
  const int64_t padded = loss_padded(row.classes);
  double* t = s + padded;
  double* e = t + padded;
  const double factor = 1 / row.first;
  const double beta = row.second;
  const double log_student = log1p(-beta);
  const double log_teacher = log(beta);
  widen(row.student, row.classes, padded, factor, s);
  widen(row.teacher, row.classes, padded, factor, t);
  Softmax own, given;
  if (!softmax<V>(t, e, padded, given) || !softmax<V>(s, e, padded, own)) return NAN;
  double teacher_part = 0;
  double student_part = 0;
  for (int64_t j = 0; j < row.classes; j++) {
    const double log_s = s[j] - own.log_z;
    const double log_t = t[j] - given.log_z;
    const double a = log_s + log_student;
    const double b = log_t + log_teacher;
    const double high = a > b ? a : b;
    const double p = e[j] / own.z;
    const double q = exp(log_t);
    if (high == kNothing) continue;
    const double log_m = high + log1p(exp(-fabs(a - b)));
    if (q > 0) teacher_part += q * (log_t - log_m);
    if (p > 0) student_part += p * (log_s - log_m);
    s[j] = log_s - log_m;
  }
  if (row.gradient != nullptr) {
    const double a = row.scale * factor * (1 - beta) / own.z;
    for (int64_t j = 0; j < row.classes; j++) {
      if (e[j] > 0) add(row.gradient[j], a * e[j] * (s[j] - student_part));
    }
  }
  return beta * teacher_part + (1 - beta) * student_part;
}

template <class V, class T>
static double total_variation(const LossRow<T>& row, double* s) {
  using R = typename V::R;
  const int64_t padded = loss_padded(row.classes);
  double* e = s + padded;
  double* q = e + padded;
  const double factor = 1 / row.first;
  Softmax own, given;
  widen(row.teacher, row.classes, padded, factor, s);
  if (!softmax<V>(s, q, padded, given)) return NAN;
  widen(row.student, row.classes, padded, factor, s);
  if (!softmax<V>(s, e, padded, own)) return NAN;
  const R zero = V::set1(0);
  const R by_own = V::set1(1 / own.z);
  const R by_given = V::set1(1 / given.z);
  R apart[4] = {zero, zero, zero, zero};
  R mean[4] = {zero, zero, zero, zero};
  for (int64_t i = 0; i < padded; i += 4 * V::N) {
    for (int k = 0; k < 4; k++) {
      const int64_t at = i + k * V::N;
      const R p = V::load(e + at) * by_own;
      const R difference = p - V::load(q + at) * by_given;
      const R opposite = zero - difference;
      apart[k] = apart[k] + V::max(difference, opposite);
      mean[k] = mean[k] + V::keep_above(difference, zero, p) - V::keep_above(opposite, zero, p);
      V::store(e + at, p);
      V::store(q + at, difference);
    }
  }
  if (row.gradient != nullptr) {
    const double centre = Lanes<V>::total(mean);
    const double a = row.scale * factor * 0.5;
    for (int64_t j = 0; j < row.classes; j++) {
      const double sign = (q[j] > 0 ? 1.0 : 0.0) - (q[j] < 0 ? 1.0 : 0.0);
      add(row.gradient[j], a * e[j] * (sign - centre));
    }
  }
  return 0.5 * Lanes<V>::total(apart);
}

template <class V, class T>
static double dense_row(const LossRow<T>& row, double* scratch) {
  switch (row.kind) {
    case LossKind::ForwardKl:
      return forward_kl<V>(row, scratch);
    case LossKind::ReverseKl:
      return reverse_kl<V>(row, scratch);
    case LossKind::Jsd:
      return jsd<V>(row, scratch);
    case LossKind::TotalVariation:
      return total_variation<V>(row, scratch);
    default:
      return label_row<V>(row, scratch);
  }
}

template <class V, class T>
static double sparse_row(const SparseRow<T>& row, double* s) {
  const int64_t padded = loss_padded(row.classes);
  double* e = s + padded;
  const double factor = 1 / row.temperature;
  widen(row.student, row.classes, padded, factor, s);
  const double leftover = row.listed < row.classes ? row.leftover : 0;
  double mass = leftover > 0 ? pow(leftover, factor) : 0;
  double list_most = kNothing;
  for (int64_t i = 0; i < row.listed; i++) {
    mass += exp(row.log_probs[i] * factor);
    const double v = s[row.ids[i]];
    if (!(v < INFINITY)) return NAN;
    list_most = v > list_most ? v : list_most;
    s[row.ids[i]] = kNothing;
  }
  const double most = Lanes<V>::largest(s, padded);
  if (most == INFINITY) return NAN;
  const double shift = most == kNothing ? 0 : most;
  const double z = Lanes<V>::exponentials(s, e, padded, shift);
  if (z != z || (most == kNothing && list_most == kNothing)) return NAN;
  const double log_tail = most == kNothing ? kNothing : most + log(z);
  const double top = list_most > log_tail ? list_most : log_tail;
  double sum = most == kNothing ? 0 : exp(log_tail - top);
  for (int64_t i = 0; i < row.listed; i++) {
    sum += exp(static_cast<double>(row.student[row.ids[i]]) * factor - top);
  }
  const double log_z = top + log(sum);
  if (mass == 0) return 0;
  const double log_mass = log(mass);
  const double log_rest = leftover > 0 ? log(leftover) * factor - log_mass : kNothing;
  const double rest = exp(log_rest);
  double loss = rest > 0 ? rest * (log_rest - (log_tail - log_z)) : 0;
  const double a = row.scale * factor;
  if (row.gradient != nullptr && most > kNothing) {
    const double share = rest > 0 ? rest / z : 0;
    add_scaled(row.gradient, e, a * (exp(shift - log_z) - share), 0, row.classes);
  }
  for (int64_t i = 0; i < row.listed; i++) {
    const double log_q = row.log_probs[i] * factor - log_mass;
    const double q = exp(log_q);
    const double log_p = static_cast<double>(row.student[row.ids[i]]) * factor - log_z;
    if (q > 0) loss += q * (log_q - log_p);
    if (row.gradient != nullptr) add(row.gradient[row.ids[i]], a * (exp(log_p) - q));
  }
  return loss;
}

template <class V>
constexpr LossRowKernels make_loss_row_kernels() {
  return LossRowKernels{dense_row<V, float>, dense_row<V, double>, sparse_row<V, float>, sparse_row<V, double>};
}

}  // namespace
}  // namespace surprisal
