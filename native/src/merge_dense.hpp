// Dense merging of stored tensors: weighted sums, dot products, mixing by distance. Inputs and outputs are stored bytes of
// F64, F32, F16 or BF16 elements at any alignment. Differences from a base are rounded to f32, or to f64 where an input
// is F64; all else is f64, rounded operation by operation, and a result is rounded once. The same bits whatever the number
// of threads and the instruction set; the same in TypeScript: merge-dense-reference.ts.
#pragma once
#include <cstdint>

#include "dtypes.hpp"

namespace surprisal {

constexpr int kMostMergeInputs = 64;

struct StoredElements {
  const uint8_t* bytes;
  DType type;
};

struct StoredOutput {
  uint8_t* bytes;
  DType type;
};

// Which elements of a row-major [rows, columns] matrix have a coefficient, or a dot product, of their own.
enum class Groups : int { All, Rows, Columns };

struct MergeInputs {
  const StoredElements* items;
  int count;
  bool relative;  // the others count as their differences from the first
  bool wide;      // an input is F64
  int64_t rows, columns;
  int vectors() const { return relative ? count - 1 : count; }
  int pairs() const { return vectors() * (vectors() + 1) / 2; }
};

// output = sum over i of coefficients[i, group] x_i.
void combine_elements(const MergeInputs& inputs, const double* coefficients, Groups groups, const StoredOutput& output,
                      int threads);

// Elements of a block of a sum.
constexpr int64_t kGramBlock = 1 << 14;

// Dot products of all pairs of vectors over blocks of a group: [groups, blocks of a group, pairs]; a group is all (one
// row then) or a row. With `combination` the square of that one sum of vectors.
void gram_blocks(const MergeInputs& inputs, const double* combination, double* target, int threads);

// Dot products over the rows of each column: [columns, pairs].
void gram_columns(const MergeInputs& inputs, double* target, int threads);

// g b + (1 - g) a with g = clamp(t / max(|a - b|, 1e-6), 0, 1).
void swap_near(const StoredElements& a, const StoredElements& b, double t, int64_t count, const StoredOutput& output,
               int threads);

// Ranges of one instruction set.
struct MergeDenseKernels {
  void (*combine)(const MergeInputs& inputs, const double* coefficients, Groups groups, const StoredOutput& output,
                  int64_t begin, int64_t end);
  // One block [begin, end) into one set of pairs.
  void (*gram)(const MergeInputs& inputs, const double* combination, int64_t begin, int64_t end, double* target);
  void (*gram_columns)(const MergeInputs& inputs, int64_t begin, int64_t end, double* target);
  void (*swap_near)(const StoredElements& a, const StoredElements& b, bool wide, double t, const StoredOutput& output,
                    int64_t begin, int64_t end);
};

extern const MergeDenseKernels kMergeDenseBaseline;
#if defined(__x86_64__)
extern const MergeDenseKernels kMergeDenseAvx2;
extern const MergeDenseKernels kMergeDenseAvx512;
#endif

}  // namespace surprisal
