// Scans of gains in vectors of doubles, included by one translation unit an instruction set.
#pragma once
#include <math.h>
#include <string.h>

#include "linear_assignment.hpp"

namespace surprisal {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
// Columns that are looked at together before any is looked at alone.
constexpr int kBlock = 32;

typedef double Reals __attribute__((vector_size(8 * kLanes)));
typedef int64_t Masks __attribute__((vector_size(8 * kLanes)));
typedef float Singles __attribute__((vector_size(4 * kLanes)));

inline Reals load(const double* from) {
  Reals x;
  memcpy(&x, from, sizeof x);
  return x;
}

inline Reals load(const float* from) {
  Singles x;
  memcpy(&x, from, sizeof x);
  return __builtin_convertvector(x, Reals);
}

inline void store(double* to, Reals x) { memcpy(to, &x, sizeof x); }

inline Reals fill(double value) { return Reals{} + value; }

inline Reals lesser(Reals a, Reals b) { return b < a ? b : a; }
inline Reals greater(Reals a, Reals b) { return b > a ? b : a; }

inline double least_of(Reals x) {
  double least = x[0];
  for (int l = 1; l < kLanes; l++) least = x[l] < least ? x[l] : least;
  return least;
}

inline double most_of(Reals x) {
  double most = x[0];
  for (int l = 1; l < kLanes; l++) most = x[l] > most ? x[l] : most;
  return most;
}

inline void keep_largest(double* values, int32_t* indices, int64_t k, double value, int32_t index) {
  int64_t at = k - 1;
  for (; at > 0 && values[at - 1] < value; at--) {
    values[at] = values[at - 1];
    indices[at] = indices[at - 1];
  }
  values[at] = value;
  indices[at] = index;
}

template <class T>
bool ranges(const T* gain, int64_t n, int64_t begin, int64_t end, double* rows, double* columns) {
  const int64_t count = end - begin;
  double low[kAssignmentStrip], high[kAssignmentStrip];
  for (int64_t j = 0; j < count; j++) {
    low[j] = INFINITY;
    high[j] = -INFINITY;
  }
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    const T* row = gain + i * n + begin;
    // x - x is zero for finite numbers and NaN for others.
    Reals least = fill(INFINITY), most = fill(-INFINITY), odd = fill(0);
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      const Reals x = load(row + j);
      least = lesser(least, x);
      most = greater(most, x);
      odd += x - x;
      store(low + j, lesser(load(low + j), x));
      store(high + j, greater(load(high + j), x));
    }
    double row_least = least_of(least), row_most = most_of(most), row_odd = 0;
    for (int l = 0; l < kLanes; l++) row_odd += odd[l];
    for (; j < count; j++) {
      const double x = row[j];
      row_least = x < row_least ? x : row_least;
      row_most = x > row_most ? x : row_most;
      row_odd += x - x;
      low[j] = x < low[j] ? x : low[j];
      high[j] = x > high[j] ? x : high[j];
    }
    finite = finite && row_odd == 0;
    rows[2 * i] = row_least;
    rows[2 * i + 1] = row_most;
  }
  for (int64_t j = 0; j < count; j++) {
    columns[2 * (begin + j)] = low[j];
    columns[2 * (begin + j) + 1] = high[j];
  }
  return finite;
}

// Columns [begin, end) of row_scan.
template <class T>
void row_part(const T* row, const double* duals, int64_t begin, int64_t end, int64_t k, int32_t* columns,
              double* values) {
  int64_t j = begin;
  double block[kBlock];
  for (; j + kBlock <= end; j += kBlock) {
    Reals most = load(row + j) - load(duals + j);
    store(block, most);
    for (int b = kLanes; b < kBlock; b += kLanes) {
      const Reals x = load(row + j + b) - load(duals + j + b);
      store(block + b, x);
      most = greater(most, x);
    }
    if (!(most_of(most) > values[k - 1])) continue;
    for (int b = 0; b < kBlock; b++) {
      if (block[b] > values[k - 1]) keep_largest(values, columns, k, block[b], static_cast<int32_t>(j + b));
    }
  }
  for (; j < end; j++) {
    const double x = row[j] - duals[j];
    if (x > values[k - 1]) keep_largest(values, columns, k, x, static_cast<int32_t>(j));
  }
}

template <class T>
void row_scan(const T* row, const double* duals, int64_t n, int64_t first, double limit, int64_t k, int32_t* columns,
              double* values) {
  for (int64_t c = 0; c < k; c++) {
    columns[c] = -1;
    values[c] = limit;
  }
  row_part(row, duals, first, n, k, columns, values);
  row_part(row, duals, 0, first, k, columns, values);
  for (int64_t c = 0; c < k; c++) {
    if (columns[c] < 0) values[c] = -INFINITY;
  }
}

template <class T>
void column_scan(const T* gain, int64_t n, int64_t begin, int64_t end, const double* duals, int64_t k, int32_t* rows,
                 double* values, double* limits) {
  const int64_t count = end - begin;
  for (int64_t at = 0; at < count * k; at++) {
    values[at] = -INFINITY;
    rows[begin * k + at] = -1;
  }
  for (int64_t j = 0; j < count; j++) limits[j] = -INFINITY;
  for (int64_t i = 0; i < n; i++) {
    const T* row = gain + i * n + begin;
    const double dual = duals[i];
    const Reals all_duals = fill(dual);
    for (int64_t j = 0; j < count; j += kBlock) {
      const int64_t last = j + kBlock < count ? j + kBlock : count;
      if (last == j + kBlock) {
        Masks above = load(row + j) - all_duals > load(limits + j);
        for (int b = kLanes; b < kBlock; b += kLanes) above |= load(row + j + b) - all_duals > load(limits + j + b);
        int64_t any = 0;
        for (int l = 0; l < kLanes; l++) any |= above[l];
        if (any == 0) continue;
      }
      for (int64_t c = j; c < last; c++) {
        const double x = row[c] - dual;
        if (!(x > limits[c])) continue;
        keep_largest(values + c * k, rows + (begin + c) * k, k, x, static_cast<int32_t>(i));
        limits[c] = values[c * k + k - 1];
      }
    }
  }
}

template <class T>
double relax(const T* row, const double* open, double base, int64_t index, int64_t n, double* distance, int64_t* from) {
  const Reals bases = fill(base);
  const Masks indices = Masks{} + index;
  Reals least = fill(INFINITY);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Reals through = bases - (load(row + j) - load(open + j));
    const Reals old = load(distance + j);
    Masks before;
    memcpy(&before, from + j, sizeof before);
    const Masks nearer = through < old;
    const Reals now = nearer ? through : old;
    before = nearer ? indices : before;
    store(distance + j, now);
    memcpy(from + j, &before, sizeof before);
    least = lesser(least, now);
  }
  double result = least_of(least);
  for (; j < n; j++) {
    const double through = base - (row[j] - open[j]);
    if (through < distance[j]) {
      distance[j] = through;
      from[j] = index;
    }
    result = distance[j] < result ? distance[j] : result;
  }
  return result;
}

template <class T>
constexpr AssignmentScans<T> scans() {
  return {ranges<T>, row_scan<T>, column_scan<T>, relax<T>};
}

}  // namespace
}  // namespace surprisal
