// What a tensor's models and their merge differ by, in one pass. Elements, rounding and promises as in merge_dense.hpp;
// the same in TypeScript: merge-measures-reference.ts.
#pragma once
#include <cstdint>

#include "merge_dense.hpp"

namespace surprisal {

struct MeasuredTensors {
  const StoredElements* items;  // base, models, merged
  int count, models;
  bool has_base, has_merged, wide;
  const double* weights;  // of the models
  int64_t elements;

  int pairs() const { return models * (models + 1) / 2; }
  // Squares of all, dot products of deltas, square of the change.
  int sums() const { return count + pairs() + 1; }
  // ... conflicts, compared; NaNs, infinities and first bad index of each.
  int fields() const { return sums() + 2 + 3 * count; }
};

// Fields of blocks of kGramBlock elements: [blocks, fields].
void measure_blocks(const MeasuredTensors& measured, double* target, int threads);

// NaNs, infinities and the index of the first of them, or -1, of blocks: [blocks, 3].
void bad_blocks(const StoredElements& tensor, int64_t elements, double* target, int threads);

struct MeasureKernels {
  void (*measure)(const MeasuredTensors& measured, int64_t begin, int64_t end, double* target);
  // Whether a value of [begin, end) is NaN or infinite.
  bool (*any_bad)(const StoredElements& tensor, int64_t begin, int64_t end);
};

extern const MeasureKernels kMeasureBaseline;
#if defined(__x86_64__)
extern const MeasureKernels kMeasureAvx2;
extern const MeasureKernels kMeasureAvx512;
#endif

}  // namespace surprisal
