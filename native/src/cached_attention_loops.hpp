// Loops of cached_attention, compiled once an instruction set. Lanes are fixed and products are rounded before they are
// added, so that all of them give the same bits.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cached_attention.hpp"

namespace surprisal {
namespace {

constexpr int64_t kLanes = 8;
typedef float F8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t I8 __attribute__((vector_size(32), aligned(4)));
typedef double D8 __attribute__((vector_size(64)));

inline F8 load(const float* at) {
  F8 value;
  memcpy(&value, at, sizeof(value));
  return value;
}

inline void store(float* at, F8 value) { memcpy(at, &value, sizeof(value)); }

template <class V>
inline auto total(V v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// e^x for x <= 0, 2 ulp; 1.2e-38 below -87.3 (Cephes' polynomial).
inline F8 exp_negative(F8 x) {
  const F8 least = F8{} - 87.3f;
  x = x < least ? least : x;
  const F8 magic = F8{} + 12582912.0f;
  const F8 n = (x * 1.44269504088896341f + magic) - magic;
  const F8 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  F8 y = F8{} + 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = (y * (r * r) + r) + 1.0f;
  const I8 bits = (__builtin_convertvector(n, I8) + 127) << 23;
  F8 power;
  memcpy(&power, &bits, sizeof(power));
  return y * power;
}

// Scores of M queries with the keys from..to, each key read once. kVectors is head_dim / 8, 0 where it is not known.
template <int M, int kVectors>
void score_keys(const QueryBlock& block, int64_t from, int64_t to) {
  const int64_t dim = kVectors > 0 ? kVectors * kLanes : block.head_dim;
  for (int64_t t = from; t < to; t++) {
    const float* key = block.keys + t * dim;
    F8 sums[M];
    for (int m = 0; m < M; m++) sums[m] = F8{};
    for (int64_t d = 0; d < dim; d += kLanes) {
      const F8 k = load(key + d);
      for (int m = 0; m < M; m++) sums[m] += load(block.queries[m] + d) * k;
    }
    for (int m = 0; m < M; m++) block.scores[m * block.stride + t] = total(sums[m]) * block.scale;
  }
}

// Turns the scores of one query into weights, 0 for keys that it does not see, and gives their sum.
inline double soften(float* scores, int64_t from, int64_t to, int64_t begin, int64_t end, float softcap) {
  if (softcap > 0) {
    for (int64_t t = from; t < to; t++) scores[t] = softcap * std::tanh(scores[t] / softcap);
  }
  float top = scores[from];
  for (int64_t t = from; t < to; t++) top = scores[t] > top ? scores[t] : top;
  D8 sums = {};
  for (int64_t t = from; t < to; t += kLanes) {
    F8 x;
    const int64_t n = std::min(kLanes, to - t);
    if (n == kLanes) x = load(scores + t);
    else {
      x = F8{} + top;
      memcpy(&x, scores + t, n * sizeof(float));
    }
    F8 e = exp_negative(x - top);
    for (int64_t lane = n; lane < kLanes; lane++) e[lane] = 0;
    memcpy(scores + t, &e, n * sizeof(float));
    sums += __builtin_convertvector(e, D8);
  }
  for (int64_t t = begin; t < from; t++) scores[t] = 0;
  for (int64_t t = to; t < end; t++) scores[t] = 0;
  return total(sums);
}

// Weighted sums of kColumns vectors of the values, for M queries.
template <int M, int kColumns>
void add_values(const QueryBlock& block, int64_t dim, int64_t column, int64_t from, int64_t to, const float* factors) {
  F8 sums[M][kColumns];
  for (int m = 0; m < M; m++)
    for (int c = 0; c < kColumns; c++) sums[m][c] = F8{};
  const float* values = block.values + column;
  for (int64_t t = from; t < to; t++) {
    F8 v[kColumns];
    for (int c = 0; c < kColumns; c++) v[c] = load(values + t * dim + c * kLanes);
    for (int m = 0; m < M; m++) {
      const float weight = block.scores[m * block.stride + t];
      for (int c = 0; c < kColumns; c++) sums[m][c] += v[c] * weight;
    }
  }
  for (int m = 0; m < M; m++)
    for (int c = 0; c < kColumns; c++) store(block.outs[m] + column + c * kLanes, sums[m][c] * factors[m]);
}

template <int M, int kVectors>
void attend(const QueryBlock& block) {
  const int64_t dim = kVectors > 0 ? kVectors * kLanes : block.head_dim;
  const int64_t from = *std::min_element(block.from, block.from + M);
  const int64_t to = *std::max_element(block.to, block.to + M);
  score_keys<M, kVectors>(block, from, to);
  float factors[M];
  for (int m = 0; m < M; m++) {
    const double sum = soften(block.scores + m * block.stride, block.from[m], block.to[m], from, to, block.softcap);
    factors[m] = static_cast<float>(1 / sum);
  }
  int64_t column = 0;
  for (; column + 2 * kLanes <= dim; column += 2 * kLanes) add_values<M, 2>(block, dim, column, from, to, factors);
  if (column < dim) add_values<M, 1>(block, dim, column, from, to, factors);
}

template <int M>
void attend_dims(const QueryBlock& block) {
  if (block.head_dim == 64) return attend<M, 8>(block);
  if (block.head_dim == 128) return attend<M, 16>(block);
  attend<M, 0>(block);
}

inline void attend_block(const QueryBlock& block) {
  switch (block.count) {
    case 1: return attend_dims<1>(block);
    case 2: return attend_dims<2>(block);
    case 3: return attend_dims<3>(block);
    default: return attend_dims<4>(block);
  }
}

}  // namespace
}  // namespace surprisal
