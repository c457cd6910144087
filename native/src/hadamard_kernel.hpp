// The kernels over the vectors of one instruction set, for the hadamard.*.cpp files. `S` gives the scalar T, the vector
// V of N scalars with load and store, stage<stride> (the butterflies of one stride below N inside a vector), and
// kDoubles: doubles a vector holds; kRadix: a pass over memory does as many strides as 2^kRadix vectors in registers allow.
#pragma once
#include <cstring>
#include <limits>

#include "hadamard.hpp"

namespace surprisal {
namespace {

// All butterflies of strides below min(N, segment) inside one vector, in ascending order.
template <class S, int kStride = 1>
inline __attribute__((always_inline)) typename S::V inside_vector(typename S::V v, int64_t segment) {
  if constexpr (kStride < S::N) {
    if (segment <= kStride) return v;
    return inside_vector<S, 2 * kStride>(S::template stage<kStride>(v), segment);
  } else {
    return v;
  }
}

// kStages strides between 2^kStages vectors.
template <class S, int kStages>
inline __attribute__((always_inline)) void between_vectors(typename S::V (&v)[1 << kStages]) {
#pragma GCC unroll 4
  for (int stage = 0; stage < kStages; stage++) {
    const int stride = 1 << stage;
#pragma GCC unroll 16
    for (int i = 0; i < (1 << kStages); i++) {
      if ((i & stride) == 0) {
        const typename S::V a = v[i], b = v[i + stride];
        v[i] = a + b;
        v[i + stride] = a - b;
      }
    }
  }
}

// Strides 1 to N 2^(kStages - 1), a run of 2^kStages vectors at a time.
template <class S, int kStages>
void first_pass(typename S::T* x, int64_t count) {
  constexpr int kVectors = 1 << kStages;
  for (int64_t at = 0; at < count; at += kVectors * S::N) {
    typename S::V v[kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; i++) v[i] = inside_vector<S>(S::load(x + at + i * S::N), S::N);
    between_vectors<S, kStages>(v);
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; i++) S::store(x + at + i * S::N, v[i]);
  }
}

// Strides h to h 2^(kStages - 1), h at least N.
template <class S, int kStages>
void strided_pass(typename S::T* x, int64_t count, int64_t h) {
  constexpr int kVectors = 1 << kStages;
  for (int64_t start = 0; start < count; start += kVectors * h) {
    for (int64_t j = start; j < start + h; j += S::N) {
      typename S::V v[kVectors];
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; i++) v[i] = S::load(x + j + i * h);
      between_vectors<S, kStages>(v);
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; i++) S::store(x + j + i * h, v[i]);
    }
  }
}

template <class T>
void plain_butterflies(T* x, int64_t count, int64_t segment) {
  for (int64_t stride = 1; stride < segment; stride *= 2) {
    for (int64_t start = 0; start < count; start += 2 * stride) {
      for (int64_t j = start; j < start + stride; j++) {
        const T a = x[j], b = x[j + stride];
        x[j] = a + b;
        x[j + stride] = a - b;
      }
    }
  }
}

// The number of strides of the next pass, of those that are left.
template <class S>
int next_stages(int64_t segment, int64_t h) {
  int stages = 0;
  while (stages < S::kRadix && (h << stages) < segment) stages++;
  return stages;
}

template <class S>
void butterflies(typename S::T* x, int64_t count, int64_t segment) {
  if (segment == 1) return;
  if (segment < S::N) {
    const int64_t whole = count - count % S::N;
    for (int64_t at = 0; at < whole; at += S::N) S::store(x + at, inside_vector<S>(S::load(x + at), segment));
    plain_butterflies(x + whole, count - whole, segment);
    return;
  }
  int stages = next_stages<S>(segment, S::N);
  switch (stages) {
    case 0: first_pass<S, 0>(x, count); break;
    case 1: first_pass<S, 1>(x, count); break;
    case 2: first_pass<S, 2>(x, count); break;
    case 3: first_pass<S, 3>(x, count); break;
    default: first_pass<S, S::kRadix>(x, count);
  }
  for (int64_t h = static_cast<int64_t>(S::N) << stages; h < segment; h <<= stages) {
    stages = next_stages<S>(segment, h);
    switch (stages) {
      case 1: strided_pass<S, 1>(x, count, h); break;
      case 2: strided_pass<S, 2>(x, count, h); break;
      case 3: strided_pass<S, 3>(x, count, h); break;
      default: strided_pass<S, S::kRadix>(x, count, h);
    }
  }
}

// The sixteen sums of four inputs: bit i of the index is set where input i is subtracted.
template <class S>
inline __attribute__((always_inline)) void signed_sums(const typename S::T* in, typename S::T* table) {
  constexpr int64_t W = kCoreColumns<typename S::T>;
  for (int64_t j = 0; j < W; j += S::N) {
    const typename S::V a = S::load(in + j), b = S::load(in + W + j);
    const typename S::V c = S::load(in + 2 * W + j), d = S::load(in + 3 * W + j);
    const typename S::V ab[4] = {a + b, b - a, a - b, -(a + b)};
    const typename S::V cd[4] = {c + d, d - c, c - d, -(c + d)};
#pragma GCC unroll 16
    for (int code = 0; code < 16; code++) S::store(table + code * W + j, ab[code & 3] + cd[code >> 2]);
  }
}

// Four inputs at a time: what they contribute to an output is one of sixteen sums (Arlazarov et al. 1970), so that an
// output costs core / 4 additions.
template <class S>
void core_product(const typename S::T* in, typename S::T* out, int64_t core, const uint8_t* codes,
                  typename S::T* tables) {
  using V = typename S::V;
  constexpr int64_t W = kCoreColumns<typename S::T>;
  constexpr int kVectors = static_cast<int>(W / S::N);
  const int64_t groups = core / 4;
  for (int64_t first = 0; first < groups; first += kCoreGroups) {
    const int64_t held = groups - first < kCoreGroups ? groups - first : kCoreGroups;
    for (int64_t g = 0; g < held; g++) signed_sums<S>(in + 4 * (first + g) * W, tables + g * 16 * W);
    for (int64_t r = 0; r < core; r++) {
      V sum[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) sum[v] = first == 0 ? V{} : S::load(out + r * W + v * S::N);
      const uint8_t* code = codes + r * groups + first;
      for (int64_t g = 0; g < held; g++) {
        const typename S::T* from = tables + (g * 16 + code[g]) * W;
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; v++) sum[v] = sum[v] + S::load(from + v * S::N);
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) S::store(out + r * W + v * S::N, sum[v]);
    }
  }
}

template <class T>
void multiply_by(T* __restrict x, const T* __restrict factors, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] *= factors[i];
}

// Sums whose entry j belongs to lane j mod 8.
struct Lanes {
  double lane[8] = {};
  double total() const {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
  }
};

// N doubles, and the eight lanes of a sum in vectors of them.
template <int N>
struct Doubles {
  typedef double V __attribute__((vector_size(8 * N)));
  typedef int64_t M __attribute__((vector_size(8 * N)));
  static constexpr int kVectors = 8 / N;
};

template <int N, class T>
inline __attribute__((always_inline)) typename Doubles<N>::V widened(const T* x) {
  typedef T Source __attribute__((vector_size(sizeof(T) * N)));
  Source source;
  memcpy(&source, x, sizeof source);
  return __builtin_convertvector(source, typename Doubles<N>::V);
}

// Zero where a value is not finite; `finite` is -1 where it is.
template <int N>
inline __attribute__((always_inline)) typename Doubles<N>::V finite_or_zero(typename Doubles<N>::V x,
                                                                            typename Doubles<N>::V* size,
                                                                            typename Doubles<N>::M* finite) {
  using V = typename Doubles<N>::V;
  using M = typename Doubles<N>::M;
  const M magnitude = (M)x & (M{} + 0x7fffffffffffffff);
  *finite = (M)((V)magnitude <= (V{} + std::numeric_limits<double>::max()));
  *size = (V)(magnitude & *finite);
  return (V)((M)x & *finite);
}

template <int N>
struct MomentSums {
  using V = typename Doubles<N>::V;
  using M = typename Doubles<N>::M;
  static constexpr int kVectors = Doubles<N>::kVectors;
  M count[kVectors] = {};
  V largest[kVectors] = {}, sums[4][kVectors] = {};

  // Adds eight entries, and their squares to `energy`.
  template <class T>
  inline __attribute__((always_inline)) void add(const T* x, V (&energy)[kVectors]) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) {
      M finite;
      V size;
      const V value = finite_or_zero<N>(widened<N>(x + v * N), &size, &finite);
      const V square = value * value;
      count[v] -= finite;
      const M above = (M)(size > largest[v]);
      largest[v] = (V)(((M)size & above) | ((M)largest[v] & ~above));
      sums[0][v] += value;
      sums[1][v] += square;
      energy[v] += square;
      sums[2][v] += square * value;
      sums[3][v] += square * square;
    }
  }
};

// The last entries of a run, filled up: what is filled in adds nothing but a count where it is not NaN.
template <class T>
inline void fill_tail(const T* x, int64_t count, T (&tail)[8]) {
  for (int l = 0; l < 8; l++) tail[l] = l < count ? x[l] : std::numeric_limits<T>::quiet_NaN();
}

template <int N>
inline __attribute__((always_inline)) double lanes_total(const typename Doubles<N>::V* sum) {
  Lanes lanes;
  memcpy(lanes.lane, sum, sizeof lanes.lane);
  return lanes.total();
}

// Calls `add(eight entries)` over a run.
template <class T, class Add>
inline __attribute__((always_inline)) void by_eight(const T* x, int64_t count, Add&& add) {
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) add(x + j);
  if (j == count) return;
  T tail[8];
  fill_tail(x + j, count - j, tail);
  add(tail);
}

template <int N, class T>
double energy_of(const T* x, int64_t count) {
  using V = typename Doubles<N>::V;
  V sum[Doubles<N>::kVectors] = {};
  by_eight(x, count, [&](const T* from) {
#pragma GCC unroll 4
    for (int v = 0; v < Doubles<N>::kVectors; v++) {
      typename Doubles<N>::M finite;
      V size;
      const V value = finite_or_zero<N>(widened<N>(from + v * N), &size, &finite);
      sum[v] += value * value;
    }
  });
  return lanes_total<N>(sum);
}

template <int N, class T>
void moments_of(const T* row, int64_t columns, int64_t group, double* moments, double* energies) {
  using V = typename Doubles<N>::V;
  MomentSums<N> all;
  const auto length = [&](int64_t start) { return columns - start < group ? columns - start : group; };
  if (group % 8 == 0) {
    for (int64_t start = 0, g = 0; start < columns; start += group, g++) {
      V energy[Doubles<N>::kVectors] = {};
      by_eight(row + start, length(start), [&](const T* from) { all.add(from, energy); });
      energies[g] = lanes_total<N>(energy);
    }
  } else {
    // Lanes of the groups are not those of the row.
    V unused[Doubles<N>::kVectors] = {};
    by_eight(row, columns, [&](const T* from) { all.add(from, unused); });
    for (int64_t start = 0, g = 0; start < columns; start += group, g++) {
      energies[g] = energy_of<N>(row + start, length(start));
    }
  }
  int64_t counts[8];
  double largest[8];
  memcpy(counts, all.count, sizeof counts);
  memcpy(largest, all.largest, sizeof largest);
  moments[0] = moments[1] = 0;
  for (int l = 0; l < 8; l++) {
    moments[0] += static_cast<double>(counts[l]);
    moments[1] = largest[l] > moments[1] ? largest[l] : moments[1];
  }
  for (int p = 0; p < 4; p++) moments[2 + p] = lanes_total<N>(all.sums[p]);
}

template <class S>
constexpr HadamardKernels<typename S::T> hadamard_kernels() {
  using T = typename S::T;
  return {butterflies<S>, core_product<S>, multiply_by<T>, moments_of<S::kDoubles, T>};
}

}  // namespace
}  // namespace surprisal
