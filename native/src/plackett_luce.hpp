// Plackett-Luce list losses and gradients of rows of logits, and the likeliest classes of rows. The meaning in TypeScript:
// src/kernels/plackett-luce-reference.ts.
#pragma once
#include <cstdint>

namespace surprisal {

// In the order of LIST_WEIGHTS, LIST_TAILS and MISSING_LABELS.
enum class ListWeights : int { Teacher, Uniform, Label, Position };
enum class ListTail : int { Partial, Truncated };
enum class MissingLabel : int { TailShare, Zero, Error };

// In the order of LIST_FIGURES.
enum ListFigure : int {
  kListLoss,
  kListFirstWeight,
  kListLabelRank,
  kListTailWeight,
  kListEntropy,
  kListStudentTail,
  kListAgreement,
  kListFigures,
};

constexpr int32_t kIgnoredLabel = -100;

struct ListBatch {
  int64_t rows, classes;
  const float* student;       // [rows, classes]
  const float* teacher;       // [rows, classes], or null for stored lists
  const int32_t* ids;         // [rows, k], -1 from the end of a row that holds fewer
  const double* log_probs;    // [rows, k]
  const double* leftover;     // [rows]
  int64_t k;
  const int32_t* labels;      // [rows] or null
  bool label_first;
  ListWeights weights;
  double temperature;
  int64_t listed;
  ListTail tail;
  MissingLabel missing;
  float* gradient;            // [rows, classes] or null; may be the student's logits when it is overwritten
  double scale;
  bool overwrite;
  double* figures;            // [kListFigures, rows]
  double* contributions;      // [rows, ranks] or null
  int64_t ranks;
};

// Returns the first row that the reference would refuse, or -1.
int64_t plackett_luce_rows(const ListBatch& batch, int threads);

struct TopBatch {
  int64_t rows, classes, k;
  const float* logits;  // [rows, classes]
  double temperature;
  int32_t* ids;         // [rows, k]: the likeliest classes, ties by ascending class; -1 where a class has no probability
  float* log_probs;     // [rows, k]
  float* leftover;      // [rows]
};

// Returns the first row that holds NaN or +inf or nothing finite, or -1.
int64_t top_log_probs(const TopBatch& batch, int threads);

// A teacher's key of 32 bits, ascending as its logits descend, above the class in 64.
inline uint32_t descending_key(float logit) {
  const float plain = logit + 0.0f;  // -0 ties with 0
  uint32_t bits;
  __builtin_memcpy(&bits, &plain, 4);
  return (bits & 0x80000000u) != 0 ? bits : ~(bits | 0x80000000u);
}
inline float logit_of_key(uint32_t key) {
  const uint32_t bits = (key & 0x80000000u) != 0 ? key : ~key & 0x7fffffffu;
  float logit;
  __builtin_memcpy(&logit, &bits, 4);
  return logit;
}

// A row whose classes are ranked, for the loops below.
struct RankedRow {
  int64_t classes;
  const uint64_t* ranked;  // [classes]: key of the teacher's logit, and class
  const float* student;
  double student_max, teacher_max, inverse_temperature;
  ListWeights weights;
  double* exponentials;    // [classes], scratch
  double* ratios;          // [classes], scratch
  float* shares;           // [classes], scratch
  double* contributions;   // [ranks] or null
  int64_t ranks;
  float* gradient;         // or null
  double scale;
  bool overwrite;
};
struct RankedSums {
  double weight;  // of e^((t - max) / temperature)
  double moment;  // of the exponent times that
  double loss;
};

struct PlackettLuceLoops {
  // Largest and least finite entry, and how many are finite. False when there is NaN or +inf.
  bool (*scan)(const float* x, int64_t n, float* largest, float* least, int64_t* finite);
  // Classes before `place` by descending x, ties by place.
  int64_t (*before)(const float* x, int64_t n, int64_t place);
  // First place of a value that is there.
  int64_t (*find)(const float* x, int64_t n, float value);
  // e[i] = exp((x[i] - max) inverse) where `e` is not null; the sum. `e` may be x.
  double (*weigh)(const float* x, int64_t n, float max, float inverse, float* e);
  // Places of x[i] > least, ascending; how many.
  int64_t (*above)(const float* x, int64_t n, float least, int32_t* places);
  // g[i] = or += e[i] factor.
  void (*spread)(const float* e, int64_t n, float factor, bool overwrite, float* g);
  // Loss and gradient of a row of all classes whose finite logits lie within 600 nats. False where a masked class has a
  // weight.
  bool (*rank)(const RankedRow& row, RankedSums* sums);
};

extern const PlackettLuceLoops kPlackettLuceBaseline;
#if defined(__x86_64__)
extern const PlackettLuceLoops kPlackettLuceAvx2;
extern const PlackettLuceLoops kPlackettLuceAvx512;
#endif

}  // namespace surprisal
