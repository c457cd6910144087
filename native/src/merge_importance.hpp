// Fusion by importance: |b - a| times the Kullback-Leibler divergence of the rows of b from those of a. Elements, rounding
// and promises as in merge_dense.hpp; the same in TypeScript: merge-importance-reference.ts.
#pragma once
#include <cstdint>

#include "merge_dense.hpp"

namespace surprisal {

struct ImportancePair {
  StoredElements a, b;
  bool wide;
  int64_t rows, columns;
};

// target[row] = sum of p ln(p / q), p and q the softmax of rows of b and a plus 1e-8.
void row_divergences(const ImportancePair& pair, double* target, int threads);

void importances(const ImportancePair& pair, const double* divergences, double* target, int threads);

constexpr int kDigitValues = 1 << 16;
constexpr int kMostRanks = 3;

// counts[t, d] = how many importances have d as the 16-bit digit `level` (0 the highest) of their ordered key, among those
// whose digits before it are digits[t, 0 .. level).
void count_digits(const ImportancePair& pair, const double* divergences, const int32_t* digits, int targets, int level,
                  double* counts, int threads);

// output = importance >= threshold ? b : a; how many are b.
int64_t take_important(const ImportancePair& pair, const double* divergences, double threshold,
                       const StoredOutput& output, int threads);

struct ImportanceKernels {
  void (*divergences)(const ImportancePair& pair, int64_t first, int64_t last, double* target);
  // Elements [from, from + count) of one row.
  void (*importances)(const ImportancePair& pair, double divergence, int64_t from, int64_t count, double* target);
  int64_t (*take)(const ImportancePair& pair, double divergence, double threshold, int64_t from, int64_t count,
                  const StoredOutput& output);
};

extern const ImportanceKernels kImportanceBaseline;
#if defined(__x86_64__)
extern const ImportanceKernels kImportanceAvx2;
extern const ImportanceKernels kImportanceAvx512;
#endif

}  // namespace surprisal
