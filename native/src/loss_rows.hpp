// Losses of rows of logits and their gradients. Definitions in src/kernels/loss-rows-reference.ts and
// src/kernels/sparse-rows-reference.ts. Everything is summed in double, whatever the width of the logits.
#pragma once
#include <cstdint>

namespace surprisal {

enum class LossKind : int32_t {
  CrossEntropy = 0,  // first: smoothing
  ForwardKl = 1,     // first: temperature
  ReverseKl = 2,
  Jsd = 3,  // second: beta
  TotalVariation = 4,
  CompSum = 5,  // first: tau
  kCount = 6,
};

// One row of a loss of the label or of teacher logits.
template <class T>
struct LossRow {
  LossKind kind;
  double first, second;
  const T* student;
  const T* teacher;  // of the kinds that read one
  int64_t label;     // of the others
  T* gradient;       // null for none; `scale` times the derivative is added
  double scale;
  int64_t classes;
};

// One row of KL(q || p) with a teacher's listed classes; `leftover` is the mass of all others as one category, 0 where
// the teacher is renormalised on its list.
template <class T>
struct SparseRow {
  const T* student;
  T* gradient;
  int64_t classes;
  const int32_t* ids;
  const double* log_probs;
  int64_t listed;
  double leftover;
  double temperature;
  double scale;
};

constexpr int64_t kLossPad = 64;  // rows of scratch are padded to a multiple of this
constexpr int64_t kLossScratchRows = 3;

inline int64_t loss_padded(int64_t classes) { return (classes + kLossPad - 1) / kLossPad * kLossPad; }

// `scratch`: kLossScratchRows * loss_padded(classes) doubles. NaN for rows that hold NaN, +inf or nothing finite.
struct LossRowKernels {
  double (*dense32)(const LossRow<float>& row, double* scratch);
  double (*dense64)(const LossRow<double>& row, double* scratch);
  double (*sparse32)(const SparseRow<float>& row, double* scratch);
  double (*sparse64)(const SparseRow<double>& row, double* scratch);

  double of(const LossRow<float>& row, double* scratch) const { return dense32(row, scratch); }
  double of(const LossRow<double>& row, double* scratch) const { return dense64(row, scratch); }
  double of(const SparseRow<float>& row, double* scratch) const { return sparse32(row, scratch); }
  double of(const SparseRow<double>& row, double* scratch) const { return sparse64(row, scratch); }
};

extern const LossRowKernels kLossRowsBaseline;
#if defined(__x86_64__)
extern const LossRowKernels kLossRowsAvx2;
extern const LossRowKernels kLossRowsAvx512;
#endif

const LossRowKernels& loss_row_kernels();  // those of this processor

template <class T>
struct LossBatch {
  LossRow<T> row;  // pointers to the first row
  int64_t rows;
  const int32_t* labels;  // null: all rows count; a negative one leaves its row out
  double* losses;
};

template <class T>
struct SparseBatch {
  SparseRow<T> row;
  int64_t rows;
  int64_t k;
  const double* leftovers;
  bool grouped;
  const int32_t* labels;
  double* losses;
};

// Rows are independent: same bits for any number of threads.
template <class T>
void loss_rows(const LossBatch<T>& batch, int threads);
template <class T>
void sparse_rows(const SparseBatch<T>& batch, int threads);

}  // namespace surprisal
