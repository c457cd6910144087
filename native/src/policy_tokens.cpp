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
          end - begin,
          0.0,
          false};
}

int64_t ones_of(const uint8_t* mask, int64_t tokens) {
  int64_t count = 0;
  for (int64_t i = 0; i < tokens; i++) count += mask[i] != 0;
  return count;
}

// Moves the tokens of a run that count together in its room; what is masked out is never used.
class Compacted {
 public:
  // `ids` becomes those that count, where it is not null.
  TokenRun of(const TokenRun& run, const uint8_t* mask, const int32_t** ids) {
    const size_t tokens = static_cast<size_t>(run.tokens);
    if (room_.size() < 5 * tokens) room_.resize(5 * tokens);
    if (ids_.size() < tokens) ids_.resize(tokens);
    double* next = room_.data();
    TokenRun result = run;
    for (const double** column : {&result.log_prob, &result.old_log_prob, &result.reference_log_prob, &result.entropy,
                                  &result.advantage}) {
      if (*column == nullptr) continue;
      copy(*column, mask, run.tokens, next);
      *column = next;
      next += tokens;
    }
    if (*ids != nullptr) {
      copy(*ids, mask, run.tokens, ids_.data());
      *ids = ids_.data();
    }
    result.tokens = ones_of(mask, run.tokens);
    return result;
  }

 private:
  template <class T>
  static void copy(const T* column, const uint8_t* mask, int64_t tokens, T* into) {
    int64_t at = 0;
    for (int64_t i = 0; i < tokens; i++) {
      into[at] = column[i];
      at += mask[i] != 0;
    }
  }

  std::vector<double> room_;
  std::vector<int32_t> ids_;
};

void hold(const double* column, int64_t tokens, double* into) {
  if (into == nullptr || column == nullptr) return;
  for (int64_t i = 0; i < tokens; i++) into[i] = column[i] + 0.0;
}

double* shifted(double* column, int64_t by) { return column == nullptr ? nullptr : column + by; }

}  // namespace

int64_t response_figures(const TokenColumns& columns, const double* response_advantage, const int32_t* offsets,
                         int64_t records, double clip_low, double clip_high, double* figures, const HeldColumns& held,
                         int threads) {
  const PolicyTokenLoops& loops = token_loops();
  const bool holds = held.log_prob != nullptr || held.entropy != nullptr || held.advantage != nullptr ||
                     held.held_ids != nullptr;
  // [records + 1]: where the tokens of each response are held.
  std::vector<int64_t> places(holds ? records + 1 : 0, held.at);
  for (int64_t r = 0; holds && r < records; r++) {
    places[r + 1] = places[r] + ones_of(columns.mask + offsets[r], offsets[r + 1] - offsets[r]);
  }
  if (holds && places[records] > held.room) return -1;
  parallel_for(records, response_grain(offsets, records), threads, [&](int64_t begin, int64_t end) {
    Compacted compacted;
    for (int64_t r = begin; r < end; r++) {
      TokenRun run = run_of(columns, offsets[r], offsets[r + 1]);
      const int32_t* ids = held.held_ids == nullptr ? nullptr : held.ids + offsets[r];
      const uint8_t* mask = columns.mask + offsets[r];
      if (std::memchr(mask, 0, static_cast<size_t>(run.tokens)) != nullptr) run = compacted.of(run, mask, &ids);
      if (response_advantage != nullptr) {
        run.response_advantage = response_advantage[r];
        run.has_response_advantage = true;
      }
      loops.figures(run, clip_low, clip_high, figures + r * kResponseFields);
      if (!holds) continue;
      hold(run.log_prob, run.tokens, shifted(held.log_prob, places[r]));
      hold(run.entropy, run.tokens, shifted(held.entropy, places[r]));
      hold(run.advantage, run.tokens, shifted(held.advantage, places[r]));
      if (ids != nullptr) std::memcpy(held.held_ids + places[r], ids, static_cast<size_t>(run.tokens) * sizeof(int32_t));
    }
  });
  return holds ? places[records] : held.at;
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

int64_t response_covariances(const double* log_prob, const double* response_advantage, const int32_t* offsets,
                             int64_t records, double mean_log_prob, double mean_advantage, double* summands,
                             int threads) {
  const PolicyTokenLoops& loops = token_loops();
  std::atomic<int64_t> positive{0};
  parallel_for(records, response_grain(offsets, records), threads, [&](int64_t begin, int64_t end) {
    int64_t own = 0;
    for (int64_t r = begin; r < end; r++) {
      own += loops.response_covariances(log_prob + offsets[r], response_advantage[r] - mean_advantage,
                                        offsets[r + 1] - offsets[r], mean_log_prob, summands + offsets[r]);
    }
    positive += own;
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
    if (id < 0 || (mask != nullptr && mask[i] == 0)) continue;
    // Which tokens are high cannot be foreseen, so both sums are always made.
    const bool is_high = entropy[i] >= threshold;
    tables.counts[2 * id] += 1.0;
    tables.counts[2 * id + 1] += is_high ? 1.0 : 0.0;
    tables.entropies[id] += is_high ? entropy[i] : 0.0;
  }
  return true;
}

void sums_above(const double* values, const int32_t* offsets, int64_t records, const double* thresholds,
                int64_t threshold_count, double* sums, int threads) {
  const PolicyTokenLoops& loops = token_loops();
  parallel_for(records, response_grain(offsets, records), threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      loops.above(values + offsets[r], offsets[r + 1] - offsets[r], thresholds, threshold_count,
                  sums + r * threshold_count);
    }
  });
}

bool settle_values(double* values, const uint8_t* mask, int64_t count, double least, double most, int threads) {
  const PolicyTokenLoops& loops = token_loops();
  std::atomic<bool> fits{true};
  parallel_for(count, kTokenGrain, threads, [&](int64_t begin, int64_t end) {
    const uint8_t* own = mask == nullptr ? nullptr : mask + begin;
    if (!loops.settle(values + begin, own, end - begin, least, most)) fits = false;
  });
  return fits;
}

bool settle_ids(int32_t* ids, const uint8_t* mask, int64_t count) {
  int32_t least = 0;
  if (mask != nullptr) {
    for (int64_t i = 0; i < count; i++) ids[i] = mask[i] != 0 ? ids[i] : 0;
  }
  for (int64_t i = 0; i < count; i++) least = ids[i] < least ? ids[i] : least;
  return least == 0;
}

bool count_mask(const uint8_t* mask, const int32_t* offsets, int64_t records, int32_t* counts) {
  uint8_t bits = 0;
  for (int64_t r = 0; r < records; r++) {
    int32_t count = 0;
    for (int64_t i = offsets[r]; i < offsets[r + 1]; i++) {
      bits |= mask[i];
      count += mask[i];
    }
    counts[r] = count;
  }
  return bits <= 1;
}

}  // namespace surprisal
