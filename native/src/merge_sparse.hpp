// Merging of sparse task vectors delta_j = theta_j - theta_0. Inputs and outputs are stored bytes of F64, F32, F16 or BF16
// elements at any alignment; task vectors are formed in floats, or in doubles where an input is F64, whenever they are
// needed, and never stored. NaN entries count as 0. Sums are f64 in a fixed order, results are rounded once: the same bits
// whatever the number of threads and the instruction set; the same in TypeScript: merge-sparse-reference.ts.
#pragma once
#include <cstdint>
#include <vector>

#include "dtypes.hpp"
#include "merge_dense.hpp"

namespace surprisal {

// Elements of a block: what stays in the first cache while it passes through several loops.
constexpr int64_t kSparseBlock = 1024;

// Task vectors on one base; without a base the tensors themselves.
struct TaskVectors {
  const StoredElements* base;
  const StoredElements* models;
  int count;
  bool wide;
  int64_t elements;
  TaskVectors only(int j) const { return {base, models + j, 1, wide, elements}; }
};

// The first elements by falling magnitude, equal ones by rising index: those above, and those equal before `end`.
struct MagnitudeCut {
  double magnitude;
  double end;
};

// What stays of a task vector; pointers may be null.
struct Sparsity {
  MagnitudeCut keep;  // what is outside is dropped
  MagnitudeCut drop;  // what is inside is dropped
  const uint8_t* mask;
  const void* probabilities;  // floats or doubles, as the task vectors
};

// The cut with exactly ranks[k] elements inside, for every k. Returns the number of NaN.
int64_t magnitude_cuts(const TaskVectors& vectors, const double* ranks, int count, MagnitudeCut* cuts, int threads);

// The same of the population variance between models; `nans` of every model.
struct VarianceCut {
  MagnitudeCut cut;
  double selected;
};
VarianceCut variance_cut(const TaskVectors& vectors, double share, double* nans, int threads);

// The value of ascending rank k.
double select_kth(const float* values, int64_t count, int64_t k, int threads);
double select_kth(const double* values, int64_t count, int64_t k, int threads);

struct TaskVectorFigures {
  double kept, nans, whole_absolute, sum, absolute, squares;
};
TaskVectorFigures measure_task_vector(const TaskVectors& vectors, const Sparsity& sparsity, int threads);

// Bits of the elements whose variance is inside the cut, and each model's sum of squares over them.
void variance_mask(const TaskVectors& vectors, const MagnitudeCut& cut, uint8_t* mask, double* squares, int threads);

struct MixedModel {
  double weight, coefficient, election;
  Sparsity sparsity;
};

enum class Consensus : int { None, Sum, Count };

struct MixSettings {
  Consensus consensus;
  bool divide_by_agreeing;
  double least_divisor;  // NaN: none
  double small_divisor;
  double divisor;
  double factor;
  bool onto_base;
};

// `figures` [2 models + 2]: kept, NaN, smallest divisor, small divisors.
void mix_task_vectors(const TaskVectors& vectors, const MixedModel* models, const MixSettings& settings,
                      const StoredOutput& output, double* figures, int threads);

// `figures` [3 models]: elements above epsilon with others, alone, NaN.
void active_counts(const TaskVectors& vectors, double epsilon, double* figures, int threads);
void mix_active(const TaskVectors& vectors, double epsilon, const double* factors, const StoredOutput& output, int threads);
void mix_by_variation(const TaskVectors& vectors, bool squares, double floor, const StoredOutput& output, double* nans,
                      int threads);

// Words of Philox4x32-10: element i has word (i >> 4) & 3 of counter 16 (i >> 6) + (i & 15).
struct MaskKey {
  uint32_t words[4];
};

void bernoulli_mask(const MaskKey& key, int64_t first, int64_t count, double density, uint8_t* mask, int threads);

struct RankedRows {
  int64_t columns;
  double low, step;
  const double* uniforms;  // null: from the key
  MaskKey key;
  int64_t first;
};
// Returns the number of NaN. `probabilities` are null, floats or doubles, as the task vectors.
int64_t ranked_mask(const TaskVectors& vectors, const RankedRows& rows, uint8_t* mask, void* probabilities, int threads);

// Counts of one block against two limits.
struct Partition {
  int64_t above, high, inside, low;
};

struct MixTally {
  double smallest;
  int64_t small;
};

// Loops over one block of at most kSparseBlock elements; buffers hold whole groups of eight.
template <class T>
struct SparseLoops {
  // Returns the number of NaN.
  int64_t (*difference)(const StoredElements& model, int64_t from, int64_t count, const T* base, T* target);
  void (*load)(const StoredElements& tensor, int64_t from, int64_t count, T* target);
  // Zeros what is not at `keep` or above, what is at `drop` or above (NaN: nothing), and where the mask has no bit; returns
  // the number that stay.
  int64_t (*sparsify)(T* values, int64_t count, T keep, T drop, const uint8_t* mask);
  void (*divide)(T* values, int64_t count, const T* probabilities);
  void (*magnitudes)(T* values, int64_t count);
  void (*partition)(const T* values, int64_t count, T low, T high, Partition* counts);
  int64_t (*equal)(const T* values, int64_t count, T value);
  // Places and values strictly between; returns their number.
  int64_t (*extract)(const T* values, int64_t count, T low, T high, uint32_t* places);
  // Sums of x, |x| and x^2.
  void (*sums)(const T* values, int64_t count, double* target);
  void (*variance)(const T* const* vectors, int models, int64_t count, double* target);
  void (*mix)(const T* const* vectors, int models, const MixedModel* mixed, const MixSettings& settings,
              const double* origin, int64_t count, double* target, MixTally* tally);
  void (*count_active)(const T* const* vectors, int models, double epsilon, int64_t count, int64_t* shared,
                       int64_t* unique);
  void (*mix_active)(const T* const* vectors, int models, double epsilon, const double* factors, const double* origin,
                     int64_t count, double* target);
  void (*mix_by_variation)(const T* const* vectors, int models, bool squares, double floor, const double* origin,
                           int64_t count, double* target);
};

struct SparseKernels {
  SparseLoops<float> f32;
  SparseLoops<double> f64;
  void (*store)(const double* values, const StoredOutput& output, int64_t from, int64_t count);
  void (*origin)(const StoredElements& tensor, int64_t from, int64_t count, double* target);
  // 64 words, or the bits of those below the limit, of elements 64 group and on.
  void (*words)(const MaskKey& key, int64_t group, uint32_t* target);
  uint64_t (*bits_below)(const MaskKey& key, int64_t group, uint32_t limit);
  const SparseLoops<float>& of(const float*) const { return f32; }
  const SparseLoops<double>& of(const double*) const { return f64; }
};

extern const SparseKernels kSparseBaseline;
#if defined(__x86_64__)
extern const SparseKernels kSparseAvx2;
extern const SparseKernels kSparseAvx512;
#endif

// Those of the processor.
const SparseKernels& sparse_kernels();


}  // namespace surprisal
