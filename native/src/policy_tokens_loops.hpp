// Included by one translation unit for each instruction set. Sums run in eight lanes that are added in one tree, and nothing is
// fused, so that every set gives the same bits.
#pragma once
#include <cmath>
#include <cstring>

#include "exp_polynomials.hpp"
#include "policy_tokens.hpp"

namespace surprisal {
namespace {

constexpr int kLanes = 8;
using D8 = double __attribute__((vector_size(64)));
using L8 = int64_t __attribute__((vector_size(64)));
// Where Omega holds a probability: ln 1e-8 and ln(1 - 1e-8).
constexpr double kLeastLog = -18.420680743952367;
constexpr double kMostLog = -1.0000000050000001e-08;

#define SURPRISAL_INLINE inline __attribute__((always_inline))

SURPRISAL_INLINE void load(const double* from, D8& into) { std::memcpy(&into, from, sizeof into); }
SURPRISAL_INLINE void splat(double value, D8& into) { into = D8{} + value; }
// `yes` where the mask is all ones, 0 elsewhere.
SURPRISAL_INLINE void keep(const L8& mask, D8& yes) {
  L8 bits;
  std::memcpy(&bits, &yes, sizeof bits);
  bits &= mask;
  std::memcpy(&yes, &bits, sizeof bits);
}
SURPRISAL_INLINE void choose(const L8& mask, const D8& yes, D8& other) {
  L8 a, b;
  std::memcpy(&a, &yes, sizeof a);
  std::memcpy(&b, &other, sizeof b);
  b = (a & mask) | (b & ~mask);
  std::memcpy(&other, &b, sizeof b);
}
SURPRISAL_INLINE void hold(D8& x, double least, double most) {
  D8 bound;
  splat(least, bound);
  choose(x < bound, bound, x);
  splat(most, bound);
  choose(x > bound, bound, x);
}

// e^x for |x| held to 700: 1 + r + r^2 q(r) times a power of two, without branches.
SURPRISAL_INLINE void exponential(const D8& exponent, D8& e) {
  D8 x = exponent;
  hold(x, -700.0, 700.0);
  const D8 shifted = x * kLog2e + kRound64;
  const D8 n = shifted - kRound64;
  const D8 r = (x - n * kLn2High64) - n * kLn2Low64;
  splat(kExp64[9], e);
  for (int i = 8; i >= 0; i--) e = e * r + kExp64[i];
  e = e * r * r + r + 1.0;
  L8 bits, power;
  std::memcpy(&bits, &e, sizeof bits);
  std::memcpy(&power, &shifted, sizeof power);
  bits += power << 52;
  std::memcpy(&e, &bits, sizeof e);
}

SURPRISAL_INLINE double reduce_lanes(const double* lanes) {
  return lanes[0] + lanes[4] + (lanes[2] + lanes[6]) + (lanes[1] + lanes[5] + (lanes[3] + lanes[7]));
}
SURPRISAL_INLINE double reduce(const D8& sum) {
  double lanes[kLanes];
  std::memcpy(lanes, &sum, sizeof lanes);
  return reduce_lanes(lanes);
}

// Calls body(i) for every eight tokens, and rest(i, n) for the last n, which stand in the first lanes.
template <class Body, class Rest>
SURPRISAL_INLINE void in_eights(int64_t count, Body&& body, Rest&& rest) {
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) body(i);
  if (whole < count) rest(whole, count - whole);
}

// The last tokens of a column, the other lanes 0.
SURPRISAL_INLINE void load_few(const double* from, int64_t count, D8& into) {
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < count; i++) lanes[i] = from[i];
  load(lanes, into);
}

double sum_of(const double* values, int64_t count) {
  D8 sum{}, x;
  in_eights(
      count,
      [&](int64_t i) {
        load(values + i, x);
        sum += x;
      },
      [&](int64_t i, int64_t n) {
        load_few(values + i, n, x);
        sum += x;
      });
  return reduce(sum);
}

// Sum of (x - mean x)(y - mean y).
double products_of(const double* x, double mean_x, const double* y, double mean_y, int64_t count) {
  D8 sum{};
  in_eights(
      count,
      [&](int64_t i) {
        D8 a, b;
        load(x + i, a);
        load(y + i, b);
        sum += (a - mean_x) * (b - mean_y);
      },
      [&](int64_t i, int64_t n) {
        double lanes[kLanes] = {};
        for (int64_t k = 0; k < n; k++) lanes[k] = (x[i + k] - mean_x) * (y[i + k] - mean_y);
        D8 product;
        load(lanes, product);
        sum += product;
      });
  return reduce(sum);
}

// Sums over the tokens of a response that has log-probabilities of both policies.
struct Sums {
  D8 log_prob{}, entropy{}, ratio{}, size{}, divergence{}, above{}, below{}, limits{};
  // By sign of the advantage and of ln x + H; where a response has one advantage, the first two are those of its sign.
  D8 counts[4]{}, omegas[4]{};
};

// Eight tokens, of which those of `counted` are there.
template <bool kHasEntropy, bool kByToken>
SURPRISAL_INLINE void add_eight(const D8& now, const D8& old, const D8& entropy, const D8& advantage, double low,
                                double high, const L8* counted, Sums& sums) {
  const D8 one = D8{} + 1.0;
  const D8 d = now - old;
  D8 rho, size = d;
  keep(L8{} + INT64_MAX, size);
  exponential(d, rho);
  D8 excess = rho - d - 1.0;
  sums.log_prob += now;
  sums.ratio += d;
  sums.size += size;
  sums.divergence += excess;
  D8 over = one, under = one;
  L8 is_over = rho > high, is_under = rho < low;
  if (kByToken) {
    is_over &= advantage > 0.0;
    is_under &= advantage < 0.0;
  }
  if (counted != nullptr) {
    is_over &= *counted;
    is_under &= *counted;
  }
  keep(is_over, over);
  keep(is_under, under);
  sums.above += over;
  sums.below += under;
  if (!kHasEntropy) return;
  sums.entropy += entropy;
  D8 log_x = now, log_q = old, power, x, limit = one;
  hold(log_x, kLeastLog, kMostLog);
  hold(log_q, kLeastLog, 0.0);
  L8 limited = (log_x != now) | (log_q != old);
  const D8 tendency = log_x + entropy;
  exponential(log_x - log_q, power);
  exponential(log_x, x);
  const D8 omega = advantage * power * (1.0 - x) * tendency;
  L8 rising = tendency > 0.0, falling = tendency < 0.0;
  if (counted != nullptr) {
    limited &= *counted;
    rising &= *counted;
    falling &= *counted;
  }
  keep(limited, limit);
  sums.limits += limit;
  const L8 positive = advantage > 0.0, negative = advantage < 0.0;
  for (int q = 0; q < (kByToken ? 4 : 2); q++) {
    L8 inside = q % 2 == 0 ? rising : falling;
    if (kByToken) inside &= q < 2 ? positive : negative;
    D8 count = one, change = omega;
    keep(inside, count);
    keep(inside, change);
    sums.counts[q] += count;
    sums.omegas[q] += change;
  }
}

template <bool kHasEntropy, bool kByToken>
void ratio_sums(const TokenRun& run, double low, double high, double* figures) {
  Sums sums;
  D8 response_advantage;
  splat(run.response_advantage, response_advantage);
  in_eights(
      run.tokens,
      [&](int64_t i) {
        D8 now, old, entropy{}, advantage = response_advantage;
        load(run.log_prob + i, now);
        load(run.old_log_prob + i, old);
        if (kHasEntropy) load(run.entropy + i, entropy);
        if (kByToken) load(run.advantage + i, advantage);
        add_eight<kHasEntropy, kByToken>(now, old, entropy, advantage, low, high, nullptr, sums);
      },
      [&](int64_t i, int64_t n) {
        D8 now, old, entropy{}, advantage = response_advantage;
        L8 counted{};
        for (int64_t k = 0; k < n; k++) counted[k] = -1;
        load_few(run.log_prob + i, n, now);
        load_few(run.old_log_prob + i, n, old);
        if (kHasEntropy) load_few(run.entropy + i, n, entropy);
        if (kByToken) load_few(run.advantage + i, n, advantage);
        add_eight<kHasEntropy, kByToken>(now, old, entropy, advantage, low, high, &counted, sums);
      });
  figures[kLogProb] = reduce(sums.log_prob);
  figures[kLogRatio] = reduce(sums.ratio);
  figures[kAbsoluteLogRatio] = reduce(sums.size);
  figures[kOldDivergence] = reduce(sums.divergence);
  const double advantage = run.response_advantage;
  const bool is_known = kByToken || run.has_response_advantage;
  if (is_known && (kByToken || advantage > 0)) figures[kClippedHigh] = reduce(sums.above);
  if (is_known && (kByToken || advantage < 0)) figures[kClippedLow] = reduce(sums.below);
  if (!kHasEntropy) return;
  figures[kEntropy] = reduce(sums.entropy);
  if (!is_known) return;
  figures[kHeldProbabilities] = reduce(sums.limits);
  if (!kByToken && advantage == 0) return;
  const int first = kByToken || advantage > 0 ? 0 : 2;
  for (int q = 0; q < (kByToken ? 4 : 2); q++) {
    figures[kQuadrantCounts + first + q] = reduce(sums.counts[q]);
    figures[kQuadrantOmegas + first + q] = reduce(sums.omegas[q]);
  }
}

void divergence_from_reference(const TokenRun& run, double* figures) {
  D8 sum{}, divergence{};
  const auto add = [&](const D8& now, const D8& reference) {
    const D8 ratio = reference - now;
    D8 power;
    exponential(ratio, power);
    sum -= ratio;
    divergence += power - ratio - 1.0;
  };
  in_eights(
      run.tokens,
      [&](int64_t i) {
        D8 now, reference;
        load(run.log_prob + i, now);
        load(run.reference_log_prob + i, reference);
        add(now, reference);
      },
      [&](int64_t i, int64_t n) {
        // e^0 - 0 - 1 is 0, so lanes that are not there add nothing.
        D8 now, reference;
        load_few(run.log_prob + i, n, now);
        load_few(run.reference_log_prob + i, n, reference);
        add(now, reference);
      });
  figures[kReferenceLogRatio] = reduce(sum);
  figures[kReferenceDivergence] = reduce(divergence);
}

void advantage_moments(const TokenRun& run, double* figures) {
  const double n = static_cast<double>(run.tokens);
  if (run.advantage == nullptr) {
    // What does not vary inside a response has no products there.
    if (run.has_response_advantage) figures[kAdvantage] = n * run.response_advantage;
    return;
  }
  figures[kAdvantage] = sum_of(run.advantage, run.tokens);
  if (run.log_prob == nullptr) return;
  figures[kProducts] =
      products_of(run.advantage, figures[kAdvantage] / n, run.log_prob, figures[kLogProb] / n, run.tokens);
}

void run_figures(const TokenRun& run, double clip_low, double clip_high, double* figures) {
  std::memset(figures, 0, kResponseFields * sizeof(double));
  figures[kCount] = static_cast<double>(run.tokens);
  if (run.tokens == 0) return;
  if (run.log_prob != nullptr && run.old_log_prob != nullptr) {
    const auto sums = run.entropy != nullptr
                          ? (run.advantage != nullptr ? ratio_sums<true, true> : ratio_sums<true, false>)
                          : (run.advantage != nullptr ? ratio_sums<false, true> : ratio_sums<false, false>);
    sums(run, 1.0 - clip_low, 1.0 + clip_high, figures);
  } else {
    if (run.log_prob != nullptr) figures[kLogProb] = sum_of(run.log_prob, run.tokens);
    if (run.entropy != nullptr) figures[kEntropy] = sum_of(run.entropy, run.tokens);
  }
  advantage_moments(run, figures);
  if (run.log_prob != nullptr && run.reference_log_prob != nullptr) divergence_from_reference(run, figures);
}

int64_t run_covariances(const double* log_prob, const double* advantage, const uint8_t* mask, int64_t tokens,
                        double mean_log_prob, double mean_advantage, double* summands) {
  int64_t positive = 0;
  for (int64_t i = 0; i < tokens; i++) {
    const double product = (advantage[i] - mean_advantage) * (log_prob[i] - mean_log_prob);
    const double summand = mask[i] != 0 ? product : 0.0;
    summands[i] = summand;
    positive += summand > 0 ? 1 : 0;
  }
  return positive;
}

// As run_covariances, for a response of one advantage whose tokens all count; -0 as 0.
int64_t run_response_covariances(const double* log_prob, double advantage, int64_t tokens, double mean_log_prob,
                                 double* summands) {
  int64_t positive = 0;
  for (int64_t i = 0; i < tokens; i++) {
    const double product = advantage * (log_prob[i] - mean_log_prob) + 0.0;
    summands[i] = product;
    positive += product > 0 ? 1 : 0;
  }
  return positive;
}

void run_omegas(const TokenRun& run, const uint8_t* mask, double* omegas) {
  double old[kLanes];
  for (int64_t i = 0; i < run.tokens; i += kLanes) {
    const int64_t n = run.tokens - i < kLanes ? run.tokens - i : kLanes;
    D8 log_x, log_q, entropy, advantage, power, x;
    load_few(run.log_prob + i, n, log_x);
    load_few(run.old_log_prob + i, n, log_q);
    load_few(run.entropy + i, n, entropy);
    load_few(run.advantage + i, n, advantage);
    hold(log_x, kLeastLog, kMostLog);
    hold(log_q, kLeastLog, 0.0);
    exponential(log_x - log_q, power);
    exponential(log_x, x);
    const D8 omega = advantage * power * (1.0 - x) * (log_x + entropy);
    std::memcpy(old, &omega, sizeof old);
    for (int64_t k = 0; k < n; k++) omegas[i + k] = mask[i + k] != 0 ? old[k] : 0.0;
  }
}

template <int kCount>
SURPRISAL_INLINE void above_some(const double* values, int64_t tokens, const double* thresholds, double* sums) {
  D8 totals[kCount]{};
  const auto add = [&](const D8& x) {
    for (int t = 0; t < kCount; t++) {
      D8 chosen = x;
      keep(x > thresholds[t], chosen);
      totals[t] += chosen;
    }
  };
  in_eights(
      tokens,
      [&](int64_t i) {
        D8 x;
        load(values + i, x);
        add(x);
      },
      [&](int64_t i, int64_t n) {
        // A lane that is not there adds 0, whatever the threshold.
        D8 x;
        load_few(values + i, n, x);
        add(x);
      });
  for (int t = 0; t < kCount; t++) sums[t] = reduce(totals[t]);
}

void run_above(const double* values, int64_t tokens, const double* thresholds, int64_t threshold_count, double* sums) {
  int64_t t = 0;
  for (; t + 6 <= threshold_count; t += 6) above_some<6>(values, tokens, thresholds + t, sums + t);
  for (; t < threshold_count; t++) above_some<1>(values, tokens, thresholds + t, sums + t);
}

// Puts 0 where the mask is 0. Whether all that is left lies in [least, most], which 0 does.
bool run_settle(double* values, const uint8_t* mask, int64_t count, double least, double most) {
  int64_t faults = 0;
  if (mask == nullptr) {
    for (int64_t i = 0; i < count; i++) faults += (values[i] >= least) & (values[i] <= most) ? 0 : 1;
    return faults == 0;
  }
  for (int64_t i = 0; i < count; i++) {
    const double value = mask[i] != 0 ? values[i] : 0.0;
    values[i] = value;
    faults += (value >= least) & (value <= most) ? 0 : 1;
  }
  return faults == 0;
}

constexpr PolicyTokenLoops kPolicyTokenLoops = {run_figures, run_covariances, run_response_covariances,
                                                run_omegas,  run_above,       run_settle};

}  // namespace
}  // namespace surprisal
