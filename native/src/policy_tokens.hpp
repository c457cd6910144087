// Passes over the tokens of rollouts: figures of every response, summands of the covariance of log-probability and advantage,
// estimates of the change of entropy token by token. Work is split by responses or by tokens, never inside a sum, and all
// arithmetic is written out, so results depend neither on threads nor on the instruction set. The same in TypeScript:
// src/kernels/policy-tokens-reference.ts.
#pragma once
#include <cstdint>

namespace surprisal {

// One value a token each; null where there is no such column.
struct TokenColumns {
  const double* log_prob;
  const double* old_log_prob;
  const double* reference_log_prob;
  const double* entropy;
  const double* advantage;
  const uint8_t* mask;
  int64_t tokens;
};

// Figures of a response, over the tokens that count; squares and products are of deviations from its own means.
enum ResponseField : int {
  kCount,
  kLogProb,
  kLogProbSquares,
  kAdvantage,
  kAdvantageSquares,
  kProducts,
  kEntropy,
  kEntropySquares,
  // d = log pi - log pi_old: sum d, sum |d|, sum e^d - d - 1.
  kLogRatio,
  kAbsoluteLogRatio,
  kOldDivergence,
  // Tokens whose clipped surrogate is larger than the plain one: A > 0 above the band, A < 0 below it.
  kClippedHigh,
  kClippedLow,
  // d = log pi_ref - log pi: sum -d, sum e^d - d - 1.
  kReferenceLogRatio,
  kReferenceDivergence,
  // Tokens by sign(A) and sign(ln x + H): ++, +-, -+, --; then sums of Omega of the same.
  kQuadrantCounts,
  kQuadrantOmegas = kQuadrantCounts + 4,
  // Tokens whose probability or old probability was held at the ends of its range in Omega.
  kHeldProbabilities = kQuadrantOmegas + 4,
  kResponseFields
};

// figures [records, kResponseFields]; response r has tokens offsets[r] to offsets[r + 1]. The ratio is clipped to
// [1 - clip_low, 1 + clip_high].
void response_figures(const TokenColumns& columns, const int32_t* offsets, int64_t records, double clip_low,
                      double clip_high, double* figures, int threads);

// summands[i] = (A_i - mean_advantage)(l_i - mean_log_prob), 0 under the mask. How many are positive.
int64_t covariance_summands(const TokenColumns& columns, double mean_log_prob, double mean_advantage, double* summands,
                            int threads);

// omegas[i] = (A / q) x (1 - x)(ln x + H), 0 under the mask.
void entropy_change_summands(const TokenColumns& columns, double* omegas, int threads);

// sums [records, thresholds]: of the values above each threshold.
void sums_above(const double* values, const uint8_t* mask, const int32_t* offsets, int64_t records,
                const double* thresholds, int64_t threshold_count, double* sums, int threads);

// Tables by token id, [ids] each: tokens that count, those of at least a threshold, and the entropies of the latter.
struct TokenTables {
  double* all;
  double* high;
  double* entropies;
  int64_t ids;
};

// Adds tokens to the tables, in their order; ids below 0 are left out. False, and nothing done, for an id beyond the tables.
bool count_tokens(const int32_t* ids, const double* entropy, const uint8_t* mask, int64_t tokens, double threshold,
                  const TokenTables& tables);

// A stretch of tokens all of which count.
struct TokenRun {
  const double* log_prob;
  const double* old_log_prob;
  const double* reference_log_prob;
  const double* entropy;
  const double* advantage;
  int64_t tokens;
};

struct PolicyTokenLoops {
  void (*figures)(const TokenRun& run, double clip_low, double clip_high, double* figures);
  int64_t (*covariances)(const double* log_prob, const double* advantage, const uint8_t* mask, int64_t tokens,
                         double mean_log_prob, double mean_advantage, double* summands);
  void (*omegas)(const TokenRun& run, const uint8_t* mask, double* omegas);
  void (*above)(const double* values, const uint8_t* mask, int64_t tokens, const double* thresholds,
                int64_t threshold_count, double* sums);
};

extern const PolicyTokenLoops kPolicyTokensBaseline;
#if defined(__x86_64__)
extern const PolicyTokenLoops kPolicyTokensAvx2;
extern const PolicyTokenLoops kPolicyTokensAvx512;
#endif

}  // namespace surprisal
