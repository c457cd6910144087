// Loops of self_attention over the vectors of one instruction set. Rows in scratch memory are padded to whole vectors
// with zeros, so that no loop has a remainder along them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "self_attention.hpp"

namespace surprisal {
namespace {

template <class V>
struct SelfAttentionOver {
  using R = typename V::R;
  static constexpr int64_t N = V::N;
  static constexpr int kRows = 6;                      // rows of a register tile
  static constexpr int kWidth = V::N == 16 ? 4 : 2;    // vectors of a register tile
  static constexpr int64_t kTile = 48;                 // queries that go together

  static int64_t padded(int64_t n) { return (n + N - 1) / N * N; }

  // C [rows, width * N] (+)= A B; A(i, k) = a[i * row_step + k * step].
  template <int kM, int kN>
  static inline void tile(float* c, int64_t ldc, const float* a, int64_t row_step, int64_t step, const float* b,
                          int64_t ldb, int64_t depth, bool add) {
    R sums[kM][kN];
    for (int m = 0; m < kM; m++)
      for (int n = 0; n < kN; n++) sums[m][n] = add ? V::load(c + m * ldc + n * N) : V::set1(0.0f);
    for (int64_t k = 0; k < depth; k++) {
      R right[kN];
      for (int n = 0; n < kN; n++) right[n] = V::load(b + k * ldb + n * N);
      for (int m = 0; m < kM; m++) {
        const R left = V::set1(a[m * row_step + k * step]);
        for (int n = 0; n < kN; n++) sums[m][n] = V::fma(left, right[n], sums[m][n]);
      }
    }
    for (int m = 0; m < kM; m++)
      for (int n = 0; n < kN; n++) V::store(c + m * ldc + n * N, sums[m][n]);
  }

  template <int kN>
  static void rows_of(float* c, int64_t ldc, const float* a, int64_t row_step, int64_t step, const float* b, int64_t ldb,
                      int64_t rows, int64_t depth, bool add) {
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) {
      tile<kRows, kN>(c + i * ldc, ldc, a + i * row_step, row_step, step, b, ldb, depth, add);
    }
    float* rest = c + i * ldc;
    const float* left = a + i * row_step;
    switch (rows - i) {
      case 1: return tile<1, kN>(rest, ldc, left, row_step, step, b, ldb, depth, add);
      case 2: return tile<2, kN>(rest, ldc, left, row_step, step, b, ldb, depth, add);
      case 3: return tile<3, kN>(rest, ldc, left, row_step, step, b, ldb, depth, add);
      case 4: return tile<4, kN>(rest, ldc, left, row_step, step, b, ldb, depth, add);
      case 5: return tile<5, kN>(rest, ldc, left, row_step, step, b, ldb, depth, add);
      default: return;
    }
  }

  // C [rows, columns] (+)= A [rows, depth] B [depth, columns], columns a multiple of N.
  static void product(float* c, int64_t ldc, const float* a, int64_t row_step, int64_t step, const float* b, int64_t ldb,
                      int64_t rows, int64_t columns, int64_t depth, bool add) {
    int64_t j = 0;
    for (; j + kWidth * N <= columns; j += kWidth * N) {
      rows_of<kWidth>(c + j, ldc, a, row_step, step, b + j, ldb, rows, depth, add);
    }
    switch ((columns - j) / N) {
      case 1: return rows_of<1>(c + j, ldc, a, row_step, step, b + j, ldb, rows, depth, add);
      case 2: return rows_of<2>(c + j, ldc, a, row_step, step, b + j, ldb, rows, depth, add);
      case 3: return rows_of<3>(c + j, ldc, a, row_step, step, b + j, ldb, rows, depth, add);
      default: return;
    }
  }

  // Rows of one head [length, head_dim] from a strided array, times a factor, turned by the rotary embedding.
  static void gather(const SelfAttention& r, const float* from, int64_t stride, bool turned, float factor, float* to,
                     int64_t width) {
    const int64_t half = r.rope_dims / 2;
    const bool turns = turned && r.cosines != nullptr;
    for (int64_t i = 0; i < r.length; i++) {
      const float* x = from + i * stride;
      float* y = to + i * width;
      int64_t d = 0;
      if (turns) {
        const float* c = r.cosines + i * half;
        const float* s = r.sines + i * half;
        for (int64_t k = 0; k < half; k++) {
          y[k] = (x[k] * c[k] - x[k + half] * s[k]) * factor;
          y[k + half] = (x[k + half] * c[k] + x[k] * s[k]) * factor;
        }
        d = 2 * half;
      }
      for (; d < r.head_dim; d++) y[d] = x[d] * factor;
      for (; d < width; d++) y[d] = 0;
    }
  }

  // The way back for gradients: the transposed rotation.
  static void scatter(const SelfAttention& r, const float* from, int64_t width, bool turned, float factor, float* to,
                      int64_t stride) {
    const int64_t half = r.rope_dims / 2;
    const bool turns = turned && r.cosines != nullptr;
    for (int64_t i = 0; i < r.length; i++) {
      const float* g = from + i * width;
      float* x = to + i * stride;
      int64_t d = 0;
      if (turns) {
        const float* c = r.cosines + i * half;
        const float* s = r.sines + i * half;
        for (int64_t k = 0; k < half; k++) {
          x[k] = (g[k] * c[k] + g[k + half] * s[k]) * factor;
          x[k + half] = (g[k + half] * c[k] - g[k] * s[k]) * factor;
        }
        d = 2 * half;
      }
      for (; d < r.head_dim; d++) x[d] = g[d] * factor;
    }
  }

  // [length, width] -> [width, columns], zeros behind.
  static void transpose(const float* from, int64_t length, int64_t width, float* to, int64_t columns) {
    for (int64_t d = 0; d < width; d++) {
      float* row = to + d * columns;
      for (int64_t i = 0; i < length; i++) row[i] = from[i * width + d];
      for (int64_t i = length; i < columns; i++) row[i] = 0;
    }
  }

  // e^(x - shift) of a row in place, one vector at a time; x - shift is at most about 0.
  static void exponentials(float* x, int64_t columns, float shift) {
    const R least = V::set1(V::kExpLow);
    const R negative = V::set1(-shift);
    const R one = V::set1(1.0f);
    for (int64_t j = 0; j < columns; j += N) {
      R d = V::max(V::fma(V::load(x + j), one, negative), least);
      R e;
      V::template exp<1, 6>(&d, &e);
      V::store(x + j, e);
    }
  }

  static void cap(float* x, int64_t from, int64_t to, float softcap) {
    if (softcap > 0) for (int64_t j = from; j < to; j++) x[j] = softcap * std::tanh(x[j] / softcap);
  }

  struct Range {
    int64_t low, columns;  // first key of a tile, a multiple of N, and the number of columns, padded
  };

  static Range keys_of(const SelfAttention& r, int64_t first, int64_t last) {
    const int64_t oldest = r.window > 0 ? std::max<int64_t>(0, first - r.window + 1) : 0;
    const int64_t low = oldest / N * N;
    return {low, padded(last - low)};
  }

  // Buffers of a thread: they grow and stay.
  static float* scratch(int which, int64_t size) {
    thread_local std::vector<float> buffers[16];
    auto& buffer = buffers[which];
    if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(size);
    return buffer.data();
  }

  static void forward(const SelfAttention& r, int64_t b, int64_t kv) {
    const int64_t width = padded(r.head_dim), columns = padded(r.length), group = r.heads / r.kv_heads;
    float* keys = scratch(0, r.length * width);
    float* turned_keys = scratch(1, width * columns);
    float* values = scratch(2, r.length * width);
    float* queries = scratch(3, r.length * width);
    float* scores = scratch(4, kTile * columns);
    float* mixed = scratch(5, kTile * width);
    const int64_t kv_at = (b * r.length * r.kv_heads + kv) * r.head_dim;
    gather(r, r.keys + kv_at, r.kv_heads * r.head_dim, true, 1, keys, width);
    gather(r, r.values + kv_at, r.kv_heads * r.head_dim, false, 1, values, width);
    transpose(keys, r.length, width, turned_keys, columns);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
      const int64_t at = (b * r.length * r.heads + h) * r.head_dim;
      gather(r, r.queries + at, r.heads * r.head_dim, true, r.scale, queries, width);
      float* sums = r.sums + (b * r.heads + h) * r.length;
      for (int64_t first = 0; first < r.length; first += kTile) {
        const int64_t count = std::min(kTile, r.length - first);
        const Range range = keys_of(r, first, first + count);
        product(scores, columns, queries + first * width, width, 1, turned_keys + range.low, columns, count,
                range.columns, width, false);
        float factors[kTile];
        for (int64_t i = 0; i < count; i++) factors[i] = soften(r, scores + i * columns, first + i, range, &sums[first + i]);
        product(mixed, width, scores, columns, 1, values + range.low * width, width, count, width,
                std::min(range.columns, r.length - range.low), false);
        for (int64_t i = 0; i < count; i++) {
          float* out = r.mixed + at + (first + i) * r.heads * r.head_dim;
          for (int64_t d = 0; d < r.head_dim; d++) out[d] = mixed[i * width + d] * factors[i];
        }
      }
    }
  }

  // Scores of one query become exponentials, 0 for keys that it does not see; returns one over their sum.
  static float soften(const SelfAttention& r, float* row, int64_t query, const Range& range, float* sum) {
    const int64_t from = (r.window > 0 ? std::max<int64_t>(0, query - r.window + 1) : 0) - range.low;
    const int64_t to = query + 1 - range.low;
    cap(row, from, to, r.softcap);
    float most = row[from];
    for (int64_t j = from; j < to; j++) most = row[j] > most ? row[j] : most;
    const int64_t begin = from / N * N, end = padded(to);
    exponentials(row + begin, end - begin, most);
    for (int64_t j = 0; j < from; j++) row[j] = 0;
    for (int64_t j = to; j < range.columns; j++) row[j] = 0;
    typename V::Wide total = V::wide_zero();
    for (int64_t j = begin; j < end; j += N) total = V::widen_add(total, V::load(row + j));
    const double all = V::wide_total(total);
    *sum = static_cast<float>(most + std::log(all));
    return static_cast<float>(1 / all);
  }

  static void backward(const SelfAttention& r, int64_t b, int64_t kv) {
    const int64_t width = padded(r.head_dim), columns = padded(r.length), group = r.heads / r.kv_heads;
    float* keys = scratch(0, r.length * width);
    float* turned_keys = scratch(1, width * columns);
    float* values = scratch(2, r.length * width);
    float* turned_values = scratch(6, width * columns);
    float* queries = scratch(3, r.length * width);
    float* weights = scratch(4, kTile * columns);
    float* slopes = scratch(7, kTile * columns);
    float* gradient = scratch(8, r.length * width);
    float* keys_gradient = scratch(9, columns * width);
    float* values_gradient = scratch(10, columns * width);
    float* queries_gradient = scratch(11, r.length * width);
    const int64_t kv_at = (b * r.length * r.kv_heads + kv) * r.head_dim;
    const int64_t kv_stride = r.kv_heads * r.head_dim, stride = r.heads * r.head_dim;
    gather(r, r.keys + kv_at, kv_stride, true, 1, keys, width);
    gather(r, r.values + kv_at, kv_stride, false, 1, values, width);
    transpose(keys, r.length, width, turned_keys, columns);
    transpose(values, r.length, width, turned_values, columns);
    std::fill(keys_gradient, keys_gradient + columns * width, 0.0f);
    std::fill(values_gradient, values_gradient + columns * width, 0.0f);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
      const int64_t at = (b * r.length * r.heads + h) * r.head_dim;
      gather(r, r.queries + at, stride, true, r.scale, queries, width);
      gather(r, r.mixed_gradient + at, stride, false, 1, gradient, width);
      const float* sums = r.sums + (b * r.heads + h) * r.length;
      for (int64_t first = 0; first < r.length; first += kTile) {
        const int64_t count = std::min(kTile, r.length - first);
        const Range range = keys_of(r, first, first + count);
        const int64_t seen = std::min(range.columns, r.length - range.low);
        product(weights, columns, queries + first * width, width, 1, turned_keys + range.low, columns, count,
                range.columns, width, false);
        product(slopes, columns, gradient + first * width, width, 1, turned_values + range.low, columns, count,
                range.columns, width, false);
        for (int64_t i = 0; i < count; i++) {
          const float* out = r.mixed + at + (first + i) * stride;
          const float* in = gradient + (first + i) * width;
          double mean = 0;
          for (int64_t d = 0; d < r.head_dim; d++) mean += static_cast<double>(out[d]) * in[d];
          slope(r, weights + i * columns, slopes + i * columns, first + i, range, sums[first + i],
                static_cast<float>(mean));
        }
        product(values_gradient + range.low * width, width, weights, 1, columns, gradient + first * width, width, seen,
                width, count, true);
        product(keys_gradient + range.low * width, width, slopes, 1, columns, queries + first * width, width, seen, width,
                count, true);
        product(queries_gradient + first * width, width, slopes, columns, 1, keys + range.low * width, width, count,
                width, seen, false);
      }
      scatter(r, queries_gradient, width, true, r.scale, r.queries_gradient + at, stride);
    }
    scatter(r, keys_gradient, width, true, 1, r.keys_gradient + kv_at, kv_stride);
    scatter(r, values_gradient, width, false, 1, r.values_gradient + kv_at, kv_stride);
  }

  // Scores of one query become its probabilities p, and the products g.v become p (g.v - mean) times the cap's slope.
  static void slope(const SelfAttention& r, float* weights, float* slopes, int64_t query, const Range& range, float sum,
                    float mean) {
    const int64_t from = (r.window > 0 ? std::max<int64_t>(0, query - r.window + 1) : 0) - range.low;
    const int64_t to = query + 1 - range.low;
    const int64_t begin = from / N * N, end = padded(to);
    if (r.softcap > 0) {
      cap(weights, from, to, r.softcap);
      for (int64_t j = from; j < to; j++) {
        const float t = weights[j] / r.softcap;
        slopes[j] = (slopes[j] - mean) * (1 - t * t);
      }
      mean = 0;
    }
    exponentials(weights + begin, end - begin, sum);
    for (int64_t j = 0; j < from; j++) weights[j] = 0;
    for (int64_t j = to; j < range.columns; j++) weights[j] = 0;
    for (int64_t j = 0; j < begin; j++) slopes[j] = 0;
    const R shift = V::set1(-mean), one = V::set1(1.0f), zero = V::set1(0.0f);
    for (int64_t j = begin; j < end; j += N) {
      const R difference = V::fma(V::load(slopes + j), one, shift);
      V::store(slopes + j, V::fma(V::load(weights + j), difference, zero));
    }
    for (int64_t j = end; j < range.columns; j++) slopes[j] = 0;
  }

  static constexpr SelfAttentionLoops table() { return {forward, backward}; }
};

}  // namespace
}  // namespace surprisal
