// The loops over lanes of merge_elements.hpp; included by one translation unit for each instruction set.
#pragma once
#include <algorithm>

#include "aligned_buffer.hpp"
#include "merge_elements.hpp"
#include "merge_measures.hpp"

namespace surprisal {
namespace {

constexpr int64_t kMeasureChunk = 256;

// Every bit of the exponent set: NaN or infinite. Bits alone, so that a sweep is as fast as reading.
template <class Word, Word kExponent>
static bool any_bad_words(const uint8_t* bytes, int64_t count) {
  Word bad = 0;
  for (int64_t i = 0; i < count; i++) {
    Word word;
    memcpy(&word, bytes + i * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
    bad = static_cast<Word>(bad | static_cast<Word>((word & kExponent) == kExponent));
  }
  return bad != 0;
}

static bool any_bad(const StoredElements& tensor, int64_t begin, int64_t end) {
  const uint8_t* const bytes = tensor.bytes + begin * dtype_width(tensor.type);
  switch (tensor.type) {
    case DType::F64:
      return any_bad_words<uint64_t, 0x7ff0000000000000u>(bytes, end - begin);
    case DType::F32:
      return any_bad_words<uint32_t, 0x7f800000u>(bytes, end - begin);
    case DType::F16:
      return any_bad_words<uint16_t, 0x7c00u>(bytes, end - begin);
    default:
      return any_bad_words<uint16_t, 0x7f80u>(bytes, end - begin);
  }
}

static inline void count_bad(const double* x, int64_t count, int64_t offset, double* target) {
  for (int64_t k = 0; k < count; k++) {
    if (x[k] - x[k] == 0) continue;
    target[x[k] != x[k] ? 0 : 1]++;
    if (target[2] < 0) target[2] = static_cast<double>(offset + k);
  }
}

static inline void add_square(const double* x, int64_t padded, double* lanes) {
  D8 sum = load_doubles(lanes);
  for (int64_t k = 0; k < padded; k += 8) {
    const D8 value = load_doubles(x + k);
    sum = sum + value * value;
  }
  store_doubles(lanes, sum);
}

static inline void subtract_chunk(const double* x, const double* base, bool wide, int64_t padded, double* target) {
  if (wide) {
    for (int64_t i = 0; i < padded; i += 8) store_doubles(target + i, load_doubles(x + i) - load_doubles(base + i));
  } else {
    for (int64_t i = 0; i < padded; i += 8) {
      store_doubles(target + i, doubles_of(floats_of(load_doubles(x + i)) - floats_of(load_doubles(base + i))));
    }
  }
}

// Elements with both signs, and with two signs at all, among the weighted vectors [models, kMeasureChunk].
static inline void count_conflicts(const double* deltas, const double* weights, int models, int64_t padded,
                                   double* target) {
  int64_t conflicts = 0, compared = 0;
  const D8 zero = broadcast(0);
  for (int64_t k = 0; k < padded; k += 8) {
    uint32_t positive = 0, negative = 0, twice = 0;
    for (int i = 0; i < models; i++) {
      const D8 value = broadcast(weights[i]) * load_doubles(deltas + i * kMeasureChunk + k);
      const uint32_t up = above(value, zero), down = above(zero, value);
      twice |= (positive | negative) & (up | down);
      positive |= up;
      negative |= down;
    }
    conflicts += __builtin_popcount(positive & negative);
    compared += __builtin_popcount(twice);
  }
  target[0] += static_cast<double>(conflicts);
  target[1] += static_cast<double>(compared);
}

static void measure(const MeasuredTensors& measured, int64_t begin, int64_t end, double* target) {
  const int sums = measured.sums(), models = measured.models, first = measured.has_base ? 1 : 0;
  AlignedBuffer<double> buffer(kMeasureChunk * (measured.count + models + 1) + 8 * sums);
  double* const raw = buffer.data();
  double* const differences = raw + measured.count * kMeasureChunk;
  double* const change = differences + models * kMeasureChunk;
  double* const lanes = change + kMeasureChunk;
  memset(lanes, 0, sizeof(double) * 8 * static_cast<size_t>(sums));
  memset(target, 0, sizeof(double) * static_cast<size_t>(measured.fields()));
  double* const bad = target + sums + 2;
  for (int t = 0; t < measured.count; t++) bad[3 * t + 2] = -1;
  const double* const deltas = measured.has_base ? differences : raw;
  for (int64_t from = begin; from < end; from += kMeasureChunk) {
    const int64_t count = std::min(kMeasureChunk, end - from);
    const int64_t padded = (count + 7) / 8 * 8;
    double* at = lanes;
    for (int t = 0; t < measured.count; t++, at += 8) {
      double* const x = raw + t * kMeasureChunk;
      load_block(measured.items[t].bytes, measured.items[t].type, from, count, x);
      for (int64_t k = count; k < padded; k++) x[k] = 0;
      add_square(x, padded, at);
    }
    if (measured.has_base) {
      for (int i = 0; i < models; i++) {
        subtract_chunk(raw + (1 + i) * kMeasureChunk, raw, measured.wide, padded, differences + i * kMeasureChunk);
      }
    }
    for (int i = 0; i < models; i++) {
      for (int j = i; j < models; j++, at += 8) {
        const double *a = deltas + i * kMeasureChunk, *b = deltas + j * kMeasureChunk;
        D8 sum = load_doubles(at);
        for (int64_t k = 0; k < padded; k += 8) sum = sum + load_doubles(a + k) * load_doubles(b + k);
        store_doubles(at, sum);
      }
    }
    if (measured.has_base && measured.has_merged) {
      subtract_chunk(raw + (first + models) * kMeasureChunk, raw, measured.wide, padded, change);
      add_square(change, padded, at);
    }
    count_conflicts(deltas, measured.weights, models, padded, target + sums);
  }
  for (int sum = 0; sum < sums; sum++) {
    const double* const v = lanes + 8 * sum;
    const double a = v[0] + v[4], b = v[1] + v[5], c = v[2] + v[6], d = v[3] + v[7];
    target[sum] = (a + c) + (b + d);
  }
  // A block with a bad value has no finite sum of squares, but for squares of F64 values that overflow.
  for (int t = 0; t < measured.count; t++) {
    if (target[t] - target[t] == 0) continue;
    double x[kMeasureChunk];
    for (int64_t from = begin; from < end; from += kMeasureChunk) {
      const int64_t count = std::min(kMeasureChunk, end - from);
      load_block(measured.items[t].bytes, measured.items[t].type, from, count, x);
      count_bad(x, count, from, bad + 3 * t);
    }
  }
}

constexpr MeasureKernels kMeasureLoops = {measure, any_bad};

}  // namespace
}  // namespace surprisal
