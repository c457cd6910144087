// Next-token distributions cut by a pipeline of filters and drawn from, row by row. The meaning in TypeScript:
// src/kernels/token-cuts.ts and token-filter-reference.ts.
#pragma once
#include <cstdint>

namespace surprisal {

// In the order of FILTER_METHODS.
enum class FilterMethod : int {
  Temperature,
  DynamicTemperature,
  TopK,
  TopP,
  MinP,
  Typical,
  Epsilon,
  Eta,
  TopNSigma,
  TopHPaper,
  TopHReference,
  TopHTransformers,
  Xtc,
  MirostatV1,
  MirostatV2,
  kCount,
};

constexpr int kFilterValues = 3;
struct FilterStep {
  FilterMethod method;
  double values[kFilterValues];
};

// In the order of FILTER_FIGURES.
enum FilterFigure : int {
  kFilterMax,
  kFilterLogSumExp,
  kFilterEntropy,
  kFilterTemperature,
  kFilterTemperedEntropy,
  kFilterKeptMass,
  kFilterKeptCount,
  kFilterEntropyAfter,
  kFilterLogProbabilityAfter,
  kFilterSurprisal,
  kFilterFigures,
};

constexpr int kMostFilterSteps = 32;

template <class T>
struct FilterBatch {
  const T* logits;  // [rows, vocabulary]
  int64_t rows;
  int64_t vocabulary;
  const int32_t* methods;  // [steps]
  int64_t steps;
  const double* values;    // [pipelines, steps, kFilterValues]; one pipeline for all rows or one a row
  bool own_values;
  const double* uniforms;  // [rows], or null to draw nothing
  bool greedy;
  int32_t* tokens;   // [rows], -1 where nothing was drawn
  double* figures;   // [kFilterFigures, rows]
  int32_t* kept;     // [rows, vocabulary] or null: the first kFilterKeptCount places of a row are filled, ascending
};

// Returns the first row that holds NaN or +inf or nothing finite, or -1.
template <class T>
int64_t filter_tokens(const FilterBatch<T>& batch, int threads);

// What is below this many nats under the largest logit has no weight.
constexpr double kWeightDepth = 700;

// Sums over tokens of weight e^d. Those of weight 1, the largest, are counted apart, so that nothing is lost of the entropy
// ln z - moment/z where nearly all mass is theirs.
struct TokenSums {
  double count = 0;   // of tokens
  double ones = 0;    // of weight 1
  double rest = 0;    // of the other weights
  double moment = 0;  // of weight d
};
constexpr int kRungs = 1024;

// Where the rungs of a ladder lie: key k is on rung min(kRungs - 1, (top - k) scale).
struct Ladder {
  double top, scale;
};

// Loops over n keys of a row.
template <class T>
struct TokenLoops {
  // Largest and least of the finite ones, and how many they are. False when there is NaN or +inf.
  bool (*scan)(const T* x, int64_t n, double* largest, double* least, int64_t* finite);
  // weights[i] = e^d, d = (x[i] - max) inverse (0 below kWeightDepth), and their sums. `weights` may be null.
  TokenSums (*weigh)(const T* x, int64_t n, double max, double inverse, double* weights);
  // Adds every key to the sums of its rung, with d = (key - max) inverse.
  void (*tally)(const T* keys, const double* weights, int64_t n, Ladder ladder, double max, double inverse,
                TokenSums* rungs);
  // Positions of the x[i] >= least, ascending; how many.
  int64_t (*find)(const T* x, int64_t n, T least, int32_t* positions);
  // Sum of x - max, or of (x - max - mean)^2, over those above -inf.
  double (*sum_about)(const T* x, int64_t n, double max, double mean, bool squared);
};

struct TokenKernels {
  TokenLoops<float> f32;
  TokenLoops<double> f64;
  const TokenLoops<float>& of(const float*) const { return f32; }
  const TokenLoops<double>& of(const double*) const { return f64; }
};

extern const TokenKernels kTokenBaseline;
#if defined(__x86_64__)
extern const TokenKernels kTokenAvx2;
extern const TokenKernels kTokenAvx512;
#endif

}  // namespace surprisal
