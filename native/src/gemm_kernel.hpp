// Tile kernels over the vectors of one instruction set, for the gemm.*.cpp files. `S` gives the scalar T, the vector V
// of N scalars with load, store, set1, fma, and the tile: kRows rows of kVectors vectors.
#pragma once
#include <algorithm>

#include "gemm.hpp"

namespace surprisal {
namespace {

template <class S>
inline __attribute__((always_inline)) void accumulate_tile(int64_t k, const typename S::T* a, const typename S::T* b,
                                                           typename S::V (&sum)[S::kRows][S::kVectors]) {
  using V = typename S::V;
#pragma GCC unroll 8
  for (int i = 0; i < S::kRows; i++) {
#pragma GCC unroll 4
    for (int v = 0; v < S::kVectors; v++) sum[i][v] = S::set1(0);
  }
  for (int64_t l = 0; l < k; l++) {
    V right[S::kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < S::kVectors; v++) right[v] = S::load(b + v * S::N);
#pragma GCC unroll 8
    for (int i = 0; i < S::kRows; i++) {
      const V left = S::set1(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < S::kVectors; v++) sum[i][v] = S::fma(left, right[v], sum[i][v]);
    }
    a += S::kRows;
    b += S::kVectors * S::N;
  }
}

// Asks for the lines of the result before the sums are ready.
template <class S, class Out>
inline __attribute__((always_inline)) void prefetch_tile(const Out* c, int64_t stride) {
  for (int i = 0; i < S::kRows; i++) {
    for (int at = 0; at < S::kVectors * S::N; at += static_cast<int>(64 / sizeof(Out))) {
      __builtin_prefetch(c + i * stride + at, 1);
    }
  }
}

template <class S>
void tile(int64_t k, const typename S::T* a, const typename S::T* b, typename S::T* c, int64_t stride,
          typename S::T alpha, typename S::T beta) {
  using V = typename S::V;
  prefetch_tile<S>(c, stride);
  V sum[S::kRows][S::kVectors];
  accumulate_tile<S>(k, a, b, sum);
  const V factor = S::set1(alpha);
  if (beta == 0) {
#pragma GCC unroll 8
    for (int i = 0; i < S::kRows; i++) {
#pragma GCC unroll 4
      for (int v = 0; v < S::kVectors; v++) S::store(c + i * stride + v * S::N, factor * sum[i][v]);
    }
  } else {
    const V keep = S::set1(beta);
#pragma GCC unroll 8
    for (int i = 0; i < S::kRows; i++) {
#pragma GCC unroll 4
      for (int v = 0; v < S::kVectors; v++) {
        typename S::T* at = c + i * stride + v * S::N;
        S::store(at, S::fma(factor, sum[i][v], keep * S::load(at)));
      }
    }
  }
}

// Single sums, added in double.
template <class S>
void wide_tile(int64_t k, const typename S::T* a, const typename S::T* b, double* c, int64_t stride, double alpha,
               double beta) {
  constexpr int kColumns = S::kVectors * S::N;
  prefetch_tile<S>(c, stride);
  alignas(64) typename S::T sums[S::kRows * kColumns];
  {
    typename S::V sum[S::kRows][S::kVectors];
    accumulate_tile<S>(k, a, b, sum);
#pragma GCC unroll 8
    for (int i = 0; i < S::kRows; i++) {
#pragma GCC unroll 4
      for (int v = 0; v < S::kVectors; v++) S::store(sums + i * kColumns + v * S::N, sum[i][v]);
    }
  }
  for (int i = 0; i < S::kRows; i++) {
    double* row = c + i * stride;
    const typename S::T* from = sums + i * kColumns;
    if (beta == 0) {
      for (int j = 0; j < kColumns; j++) row[j] = alpha * from[j];
    } else {
      for (int j = 0; j < kColumns; j++) row[j] = beta * row[j] + alpha * from[j];
    }
  }
}

// One full panel whose lines are contiguous along the depth: squares of S::N x S::N are transposed in registers.
template <class S>
void pack_transposed(const typename S::T* source, int64_t line_step, int64_t k, int width, typename S::T* target) {
  int64_t l = 0;
  if (width % S::kSquare == 0) {
    for (; l + S::kSquare <= k; l += S::kSquare) {
      for (int i = 0; i < width; i += S::kSquare) {
        S::transpose(source + i * line_step + l, line_step, target + l * width + i, width);
      }
    }
  }
  for (; l < k; l++) {
    for (int i = 0; i < width; i++) target[l * width + i] = source[i * line_step + l];
  }
}

template <class S>
void pack(const typename S::T* source, int64_t line_step, int64_t depth_step, int64_t count, int64_t k, int width,
          typename S::T* target) {
  using T = typename S::T;
  for (int64_t first = 0; first < count; first += width, target += width * k) {
    const T* from = source + first * line_step;
    const int lines = static_cast<int>(std::min<int64_t>(width, count - first));
    if (lines < width) {
      for (int64_t l = 0; l < k; l++) {
        T* to = target + l * width;
        for (int i = 0; i < lines; i++) to[i] = from[i * line_step + l * depth_step];
        for (int i = lines; i < width; i++) to[i] = 0;
      }
    } else if (line_step == 1) {
      for (int64_t l = 0; l < k; l++) {
        const T* row = from + l * depth_step;
        T* to = target + l * width;
        for (int i = 0; i < width; i++) to[i] = row[i];
      }
    } else if (depth_step == 1) {
      pack_transposed<S>(from, line_step, k, width, target);
    } else {
      for (int64_t l = 0; l < k; l++) {
        for (int i = 0; i < width; i++) target[l * width + i] = from[i * line_step + l * depth_step];
      }
    }
  }
}

template <class S>
constexpr TileKernels<typename S::T> tile_kernels() {
  static_assert(S::kRows * S::kVectors * S::N <= kMostTileEntries, "the edge tile is too small");
  return {S::kRows, S::kVectors * S::N, tile<S>, wide_tile<S>, pack<S>};
}

}  // namespace
}  // namespace surprisal
