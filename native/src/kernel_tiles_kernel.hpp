// The row kernels over a vector class V of vectors_*.hpp; included by one translation unit for each instruction set.
#pragma once
#include <math.h>
#include <string.h>

#include "exp_polynomials.hpp"
#include "kernel_tiles.hpp"

namespace surprisal {
namespace {

// sin r = r + r^3 s(r^2) and cos r = 1 - r^2/2 + r^4 c(r^2) on |r| <= pi/2, by the Remez exchange for the absolute
// error: 4.6e-9 and 3.9e-10 before rounding for float, 2.0e-19 and 5.8e-18 for double. pi in three parts.
template <class T>
struct SinCos;

template <>
struct SinCos<float> {
  static constexpr float kSin[4] = {-0.16666656732559204f, 0.008333017118275166f, -0.00019806581258308142f,
                                    2.599978643047507e-06f};
  static constexpr float kCos[4] = {0.041666656732559204f, -0.0013888569083064795f, 2.4769273295532912e-05f,
                                    -2.6193148983111314e-07f};
  static constexpr float kPi[3] = {0x1.921fb6p+1f, -0x1.777a5cp-24f, -0x1.ee59dap-49f};
  static constexpr float kRound = kRound32;
  static constexpr float kMost = 1e6f;  // above it the reduction would lose more than a rounding
};

template <>
struct SinCos<double> {
  static constexpr double kSin[8] = {-0x1.5555555555555p-3,  0x1.1111111111092p-7,  -0x1.a01a01a0126dbp-13,
                                     0x1.71de3a51c4539p-19,  -0x1.ae64547d9b3bbp-26, 0x1.6123b9ce51949p-33,
                                     -0x1.ae3f09a503d14p-41, 0x1.87c520743a87bp-49};
  static constexpr double kCos[7] = {0x1.55555555554ddp-5,   -0x1.6c16c16c101c9p-10, 0x1.a01a019ba47d9p-16,
                                     -0x1.27e4f9f27d26ep-22, 0x1.1eecfab550c87p-29,  -0x1.93572fb7b4041p-37,
                                     0x1.9fc7019ac0bd7p-45};
  static constexpr double kPi[3] = {0x1.921fb54442d18p+1, 0x1.1a62633145c07p-53, -0x1.f1976b7ed8fbcp-109};
  static constexpr double kRound = kRound64;
  static constexpr double kMost = 1e9;
};

template <class V, class T, int kTerms>
static inline __attribute__((always_inline)) typename V::R horner(const T (&c)[kTerms], typename V::R x) {
  typename V::R sum = V::set1(c[kTerms - 1]);
  for (int i = kTerms - 2; i >= 0; i--) sum = V::fma(sum, x, V::set1(c[i]));
  return sum;
}

// Degree of the polynomial of exp that gives all digits of T.
template <class T>
constexpr int kExpDegree = sizeof(T) == 4 ? 6 : 11;

template <class V>
struct TileRows {
  using T = typename V::T;
  using R = typename V::R;
  static constexpr int kWidth = 2 * V::N;

  static inline __attribute__((always_inline)) void gaussian_step(T* row, const T* half_norms, R half_norm, R factor) {
    R d[2], e[2];
    for (int k = 0; k < 2; k++) {
      const R exponent = V::load(row + k * V::N) - (half_norm + V::load(half_norms + k * V::N));
      d[k] = V::min(exponent, V::set1(0)) * factor;
    }
    V::template exp<2, kExpDegree<T>>(d, e);
    for (int k = 0; k < 2; k++) V::store(row + k * V::N, e[k]);
  }

  static void gaussian(T* row, int64_t columns, T half_norm, const T* half_norms, T factor) {
    const R half = V::set1(half_norm);
    const R gamma = V::set1(factor);
    int64_t j = 0;
    for (; j + kWidth <= columns; j += kWidth) gaussian_step(row + j, half_norms + j, half, gamma);
    if (j == columns) return;
    T rest[kWidth] = {}, norms[kWidth] = {};
    memcpy(rest, row + j, sizeof(T) * (columns - j));
    memcpy(norms, half_norms + j, sizeof(T) * (columns - j));
    gaussian_step(rest, norms, half, gamma);
    memcpy(row + j, rest, sizeof(T) * (columns - j));
  }

  static void cos_sin_scalar(const T* angles, int count, T* cosines, T* sines) {
    for (int j = 0; j < count; j++) {
      const double angle = angles[j];
      cosines[j] = static_cast<T>(::cos(angle));
      sines[j] = static_cast<T>(::sin(angle));
    }
  }

  // One vector: x = n pi + r, then both are those of r with the sign of (-1)^n.
  static inline __attribute__((always_inline)) void cos_sin_step(const T* angles, T* cosines, T* sines) {
    const R x = V::load(angles);
    const R size = V::max(x, V::set1(0) - x);
    if (V::not_below(V::set1(SinCos<T>::kMost), size) != kAll) {
      cos_sin_scalar(angles, V::N, cosines, sines);
      return;
    }
    const R round = V::set1(SinCos<T>::kRound);
    const R n = V::fma(x, V::set1(static_cast<T>(0.31830988618379067)), round) - round;
    R r = x;
    for (int part = 0; part < 3; part++) r = V::fma(n, V::set1(-SinCos<T>::kPi[part]), r);
    const R half = V::fma(n, V::set1(static_cast<T>(0.5)), round) - round;
    const R odd = V::fma(half, V::set1(-2), n);
    const R sign = V::fma(odd * odd, V::set1(-2), V::set1(1));
    const R square = r * r;
    const R sine = V::fma(r * square, horner<V>(SinCos<T>::kSin, square), r);
    const R cosine = V::fma(square * square, horner<V>(SinCos<T>::kCos, square),
                            V::fma(square, V::set1(static_cast<T>(-0.5)), V::set1(1)));
    V::store(cosines, cosine * sign);
    V::store(sines, sine * sign);
  }

  static constexpr uint32_t kAll = (1u << V::N) - 1;

  static void cos_sin(const T* angles, int64_t columns, T scale, const T* column_scale, T* cosines, T* sines) {
    int64_t j = 0;
#if defined(__FMA__) || defined(__aarch64__)
    for (; j + V::N <= columns; j += V::N) cos_sin_step(angles + j, cosines + j, sines + j);
    if (j < columns) {
      T rest[V::N] = {}, c[V::N], s[V::N];
      memcpy(rest, angles + j, sizeof(T) * (columns - j));
      cos_sin_step(rest, c, s);
      memcpy(cosines + j, c, sizeof(T) * (columns - j));
      memcpy(sines + j, s, sizeof(T) * (columns - j));
    }
#else
    // Without a fused multiply-add the reduction would lose digits.
    cos_sin_scalar(angles + j, static_cast<int>(columns), cosines, sines);
#endif
    for (j = 0; j < columns; j++) {
      const T factor = column_scale == nullptr ? scale : scale * column_scale[j];
      cosines[j] *= factor;
      sines[j] *= factor;
    }
  }
};

// The rest needs no vector class: fixed lanes that the compiler puts into registers.
template <class T>
struct PlainRows {
  template <class Power>
  static inline __attribute__((always_inline)) double lanes(const T* row, int64_t columns, const double* weights,
                                                            Power power) {
    double sums[kSumLanes] = {};
    int64_t j = 0;
    if (weights == nullptr) {
      for (; j + kSumLanes <= columns; j += kSumLanes) {
        for (int l = 0; l < kSumLanes; l++) sums[l] += power(static_cast<double>(row[j + l]));
      }
    } else {
      for (; j + kSumLanes <= columns; j += kSumLanes) {
        for (int l = 0; l < kSumLanes; l++) sums[l] += weights[j + l] * power(static_cast<double>(row[j + l]));
      }
    }
    for (int l = 0; j + l < columns; l++) {
      sums[l] += (weights == nullptr ? 1.0 : weights[j + l]) * power(static_cast<double>(row[j + l]));
    }
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  }

  static double sum(const T* row, int64_t columns, const double* weights, double power) {
    if (power == 1) return lanes(row, columns, weights, [](double x) { return x; });
    if (power == 2) return lanes(row, columns, weights, [](double x) { return x * x; });
    if (power == 3) return lanes(row, columns, weights, [](double x) { return x * x * x; });
    return lanes(row, columns, weights, [power](double x) { return ::pow(x, power); });
  }

  static void column_sums(const T* tile, int64_t rows, int64_t columns, int64_t first, int64_t last,
                          const double* weights, double* sums) {
    for (int64_t i = 0; i < rows; i++) {
      const T* row = tile + i * columns;
      const double weight = weights == nullptr ? 1.0 : weights[i];
      for (int64_t j = first; j < last; j++) sums[j] += weight * static_cast<double>(row[j]);
    }
  }

  static void add(const T* source, int64_t count, double* target) {
    for (int64_t j = 0; j < count; j++) target[j] += static_cast<double>(source[j]);
  }

  static void scale(const T* source, int64_t count, double factor, T* target) {
    for (int64_t j = 0; j < count; j++) target[j] = static_cast<T>(static_cast<double>(source[j]) * factor);
  }
};

template <class V>
constexpr TileRowKernels<typename V::T> make_tile_rows() {
  using Vector = TileRows<V>;
  using Plain = PlainRows<typename V::T>;
  return {Vector::gaussian, Vector::cos_sin, Plain::sum, Plain::column_sums, Plain::add, Plain::scale};
}

}  // namespace
}  // namespace surprisal
