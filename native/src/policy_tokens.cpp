#include "policy_tokens.hpp"

#include <atomic>
#include <cstring>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Tokens and responses a thread takes at a time.
constexpr int64_t kTokenGrain = 1 << 15;

const PolicyTokenLoops& token_loops() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kPolicyTokensAvx512;
    case Simd::Avx2:
      return kPolicyTokensAvx2;
    default:
      break;
  }
#endif
  return kPolicyTokensBaseline;
}

int64_t response_grain(const int32_t* offsets, int64_t records) {
  const int64_t tokens = records > 0 ? offsets[records] - offsets[0] : 0;
  return tokens <= kTokenGrain ? records + 1 : 1 + records * kTokenGrain / tokens;
}

const double* shifted(const double* column, int64_t by) { return column == nullptr ? nullptr : column + by; }

TokenRun run_of(const TokenColumns& columns, int64_t begin, int64_t end) {
  return {shifted(columns.log_prob, begin),
          shifted(columns.old_log_prob, begin),
          shifted(columns.reference_log_prob, begin),
          shifted(columns.entropy, begin),
          shifted(columns.advantage, begin),
          end - begin};
}

// Moves the tokens of a run that count together in `room`; what is masked out is never used.
class Compacted {
 public:
  TokenRun of(const TokenRun& run, const uint8_t* mask) {
    // A pointer to a column of the copy must not move while others are made.
    if (static_cast<int64_t>(room_.size()) < 5 * run.tokens) room_.resize(5 * run.tokens);
    next_ = room_.data();
    TokenRun result = run;
    for (const double** column : {&result.log_prob, &result.old_log_prob, &result.reference_log_prob, &result.entropy,
                                  &result.advantage}) {
      *column = copy(*column, mask, run.tokens, &result.tokens);
    }
    if (result.tokens == run.tokens) {
      int64_t count = 0;
      for (int64_t i = 0; i < run.tokens; i++) count += mask[i] != 0;
      result.tokens = count;
    }
    return result;
  }

 private:
  const double* copy(const double* column, const uint8_t* mask, int64_t tokens, int64_t* count) {
    if (column == nullptr) return nullptr;
    double* into = next_;
    int64_t at = 0;
    for (int64_t i = 0; i < tokens; i++) {
      into[at] = column[i];
      at += mask[i] != 0;
    }
    *count = at;
    next_ += tokens;
    return into;
  }

  std::vector<double> room_;
  double* next_ = nullptr;
};

}  // namespace

void response_figures(const TokenColumns& columns, const int32_t* offsets, int64_t records, double clip_low,
                      double clip_high, double* figures, int threads) {
  const PolicyTokenLoops& loops = token_loops();
  parallel_for(records, response_grain(offsets, records), threads, [&](int64_t begin, int64_t end) {
    Compacted compacted;
    for (int64_t r = begin; r < end; r++) {
      TokenRun run = run_of(columns, offsets[r], offsets[r + 1]);
      const uint8_t* mask = columns.mask + offsets[r];
      if (std::memchr(mask, 0, static_cast<size_t>(run.tokens)) != nullptr) run = compacted.of(run, mask);
      loops.figures(run, clip_low, clip_high, figures + r * kResponseFields);
    }
  });
}

int64_t covariance_summands(const TokenColumns& columns, double mean_log_prob, double mean_advantage, double* summands,
                            int threads) {
  const PolicyTokenLoops& loops = token_loops();
  std::atomic<int64_t> positive{0};
  parallel_for(columns.tokens, kTokenGrain, threads, [&](int64_t begin, int64_t end) {
    positive += loops.covariances(columns.log_prob + begin, columns.advantage + begin, columns.mask + begin,
                                  end - begin, mean_log_prob, mean_advantage, summands + begin);
  });
  return positive;
}

void entropy_change_summands(const TokenColumns& columns, double* omegas, int threads) {
  const PolicyTokenLoops& loops = token_loops();
  parallel_for(columns.tokens, kTokenGrain, threads, [&](int64_t begin, int64_t end) {
    loops.omegas(run_of(columns, begin, end), columns.mask + begin, omegas + begin);
  });
}

bool count_tokens(const int32_t* ids, const double* entropy, const uint8_t* mask, int64_t tokens, double threshold,
                  const TokenTables& tables) {
  int32_t most = -1;
  for (int64_t i = 0; i < tokens; i++) most = ids[i] > most ? ids[i] : most;
  if (most >= tables.ids) return false;
  for (int64_t i = 0; i < tokens; i++) {
    const int32_t id = ids[i];
    if (mask[i] == 0 || id < 0) continue;
    // Which tokens are high cannot be foreseen, so both sums are always made.
    const bool is_high = entropy[i] >= threshold;
    tables.all[id] += 1.0;
    tables.high[id] += is_high ? 1.0 : 0.0;
    tables.entropies[id] += is_high ? entropy[i] : 0.0;
  }
  return true;
}

void sums_above(const double* values, const uint8_t* mask, const int32_t* offsets, int64_t records,
                const double* thresholds, int64_t threshold_count, double* sums, int threads) {
  const PolicyTokenLoops& loops = token_loops();
  parallel_for(records, response_grain(offsets, records), threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      loops.above(values + offsets[r], mask + offsets[r], offsets[r + 1] - offsets[r], thresholds, threshold_count,
                  sums + r * threshold_count);
    }
  });
}

}  // namespace surprisal
