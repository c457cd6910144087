// Tile kernels over the vectors of one instruction set, for the gemm.*.cpp files. `S` gives the scalar T, the vector V
// of N scalars with load, store, set1, fma, and the tile: kRows rows of kVectors vectors.
#pragma once
#include <algorithm>

#include "gemm.hpp"

namespace surprisal {
namespace {

template <class S>
inline __attribute__((always_inline)) void clear_tile(typename S::V (&sum)[S::kRows][S::kVectors]) {
#pragma GCC unroll 8
  for (int i = 0; i < S::kRows; i++) {
#pragma GCC unroll 4
    for (int v = 0; v < S::kVectors; v++) sum[i][v] = S::set1(0);
  }
}

// Adds k steps; each asks for two lines at `next`, `next_step` further every time, when kAhead.
template <class S, bool kAhead = false>
inline __attribute__((always_inline)) void accumulate_tile(int64_t k, const typename S::T* a, const typename S::T* b,
                                                           typename S::V (&sum)[S::kRows][S::kVectors],
                                                           const typename S::T* next = nullptr,
                                                           int64_t next_step = 0) {
  using V = typename S::V;
  for (int64_t l = 0; l < k; l++) {
    if (kAhead) {
      __builtin_prefetch(next, 0, 2);
      __builtin_prefetch(next + 64 / sizeof(typename S::T), 0, 2);
      next += next_step;
    }
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
    __builtin_prefetch(c + i * stride + S::kVectors * S::N - 1, 1);
  }
}

template <class S>
void tile(int64_t k, const typename S::T* a, const typename S::T* b, typename S::T* c, int64_t stride,
          typename S::T alpha, typename S::T beta) {
  using V = typename S::V;
  prefetch_tile<S>(c, stride);
  V sum[S::kRows][S::kVectors];
  clear_tile<S>(sum);
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

template <class S>
void add_tile_ahead(int64_t k, const typename S::T* a, const typename S::T* b, typename S::T* c, int64_t stride,
                    const typename S::T* next, int64_t next_step, int64_t next_count) {
  typename S::V sum[S::kRows][S::kVectors];
  clear_tile<S>(sum);
  const int64_t with = std::min(k, next_count);
  accumulate_tile<S, true>(with, a, b, sum, next, next_step);
  accumulate_tile<S>(k - with, a + with * S::kRows, b + with * S::kVectors * S::N, sum);
#pragma GCC unroll 8
  for (int i = 0; i < S::kRows; i++) {
#pragma GCC unroll 4
    for (int v = 0; v < S::kVectors; v++) {
      typename S::T* at = c + i * stride + v * S::N;
      S::store(at, sum[i][v] + S::load(at));
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
    clear_tile<S>(sum);
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

// Lines that lie side by side: one pass over the source, which may be far longer than a panel is wide.
template <class T>
void pack_rows(const T* source, int64_t depth_step, int64_t panels, int64_t k, int width, int64_t panel_step,
               T* target) {
  for (int64_t l = 0; l < k; l++) {
    const T* row = source + l * depth_step;
    for (int64_t panel = 0; panel < panels; panel++) {
      T* to = target + panel * panel_step + l * width;
      for (int i = 0; i < width; i++) to[i] = row[panel * width + i];
    }
  }
}

template <class S>
void pack(const typename S::T* source, int64_t line_step, int64_t depth_step, int64_t count, int64_t k, int width,
          int64_t panel_step, typename S::T* target) {
  using T = typename S::T;
  const int64_t whole = count / width;
  if (line_step == 1) {
    // Widths that the compiler knows are copied in whole vectors.
    if (width == S::kVectors * S::N) pack_rows(source, depth_step, whole, k, S::kVectors * S::N, panel_step, target);
    else if (width == S::kRows) pack_rows(source, depth_step, whole, k, S::kRows, panel_step, target);
    else pack_rows(source, depth_step, whole, k, width, panel_step, target);
  } else {
    for (int64_t panel = 0; panel < whole; panel++) {
      const T* from = source + panel * width * line_step;
      T* to = target + panel * panel_step;
      if (depth_step == 1) {
        pack_transposed<S>(from, line_step, k, width, to);
      } else {
        for (int64_t l = 0; l < k; l++) {
          for (int i = 0; i < width; i++) to[l * width + i] = from[i * line_step + l * depth_step];
        }
      }
    }
  }
  const int rest = static_cast<int>(count - whole * width);
  if (rest == 0) return;
  source += whole * width * line_step;
  target += whole * panel_step;
  for (int64_t l = 0; l < k; l++) {
    T* to = target + l * width;
    for (int i = 0; i < rest; i++) to[i] = source[i * line_step + l * depth_step];
    for (int i = rest; i < width; i++) to[i] = 0;
  }
}

template <class S>
constexpr TileKernels<typename S::T> tile_kernels() {
  static_assert(S::kRows * S::kVectors * S::N <= kMostTileEntries, "the edge tile is too small");
  return {S::kRows, S::kVectors * S::N, tile<S>, add_tile_ahead<S>, wide_tile<S>, pack<S>};
}

}  // namespace
}  // namespace surprisal
