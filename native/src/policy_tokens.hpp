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

// Where the tokens that count are put, one behind another from `at` on, -0 as 0; null for what is not wanted.
struct HeldColumns {
  double* log_prob;
  double* entropy;
  double* advantage;
  const int32_t* ids;
  int32_t* held_ids;
  int64_t room, at;
};

// Figures of a response, over the tokens that count; products are of deviations from its own means.
enum ResponseField : int {
  kCount,
  kLogProb,
  kAdvantage,
  kProducts,
  kEntropy,
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
// [1 - clip_low, 1 + clip_high]. `response_advantage` [records] where all tokens of a response have one, else null. Returns the
// position behind the last held token, or -1, with nothing held, where they do not fit.
int64_t response_figures(const TokenColumns& columns, const double* response_advantage, const int32_t* offsets,
                         int64_t records, double clip_low, double clip_high, double* figures, const HeldColumns& held,
                         int threads);

// summands[i] = (A_i - mean_advantage)(l_i - mean_log_prob), 0 under the mask. How many are positive.
int64_t covariance_summands(const TokenColumns& columns, double mean_log_prob, double mean_advantage, double* summands,
                            int threads);

// The same where all tokens count and those of a response have one advantage; `summands` may be `log_prob`.
int64_t response_covariances(const double* log_prob, const double* response_advantage, const int32_t* offsets,
                             int64_t records, double mean_log_prob, double mean_advantage, double* summands,
                             int threads);

// omegas[i] = (A / q) x (1 - x)(ln x + H), 0 under the mask.
void entropy_change_summands(const TokenColumns& columns, double* omegas, int threads);

// sums [records, thresholds]: of the values above each threshold.
void sums_above(const double* values, const int32_t* offsets, int64_t records, const double* thresholds,
                int64_t threshold_count, double* sums, int threads);

// Puts 0 where the mask is 0 (nowhere where it is null). Whether all that is left lies in [least, most]; 0 must.
bool settle_values(double* values, const uint8_t* mask, int64_t count, double least, double most, int threads);

// The same of whole numbers, which are at least 0.
bool settle_ids(int32_t* ids, const uint8_t* mask, int64_t count);

// counts [records]: entries of the mask that are 1. Whether all entries are 0 or 1.
bool count_mask(const uint8_t* mask, const int32_t* offsets, int64_t records, int32_t* counts);

// Tables by token id: [ids, 2] tokens that count and those of at least a threshold, [ids] the entropies of the latter.
struct TokenTables {
  double* counts;
  double* entropies;
  int64_t ids;
};

// Adds tokens to the tables, in their order; ids below 0 are left out, and tokens under a mask that is not null. False, and
// nothing done, for an id beyond the tables.
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
  // Of all its tokens, where they have one.
  double response_advantage;
  bool has_response_advantage;
};

struct PolicyTokenLoops {
  void (*figures)(const TokenRun& run, double clip_low, double clip_high, double* figures);
  int64_t (*covariances)(const double* log_prob, const double* advantage, const uint8_t* mask, int64_t tokens,
                         double mean_log_prob, double mean_advantage, double* summands);
  int64_t (*response_covariances)(const double* log_prob, double advantage, int64_t tokens, double mean_log_prob,
                                  double* summands);
  void (*omegas)(const TokenRun& run, const uint8_t* mask, double* omegas);
  void (*above)(const double* values, int64_t tokens, const double* thresholds, int64_t threshold_count, double* sums);
  bool (*settle)(double* values, const uint8_t* mask, int64_t count, double least, double most);
};

extern const PolicyTokenLoops kPolicyTokensBaseline;
#if defined(__x86_64__)
extern const PolicyTokenLoops kPolicyTokensAvx2;
extern const PolicyTokenLoops kPolicyTokensAvx512;
#endif

}  // namespace surprisal
