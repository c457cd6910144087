// Included by one translation unit for each instruction set; loops that the compiler turns into vectors. Sums run in eight
// lanes that are added in one tree, and nothing is fused, so that every set gives the same bits.
#pragma once
#include <cmath>
#include <cstring>

#include "exp_polynomials.hpp"
#include "policy_tokens.hpp"

namespace surprisal {
namespace {

constexpr int kLanes = 8;
// Where Omega holds a probability: ln 1e-8 and ln(1 - 1e-8).
constexpr double kLeastLog = -18.420680743952367;
constexpr double kMostLog = -1.0000000050000001e-08;

inline double reduce_lanes(const double* lanes) {
  return lanes[0] + lanes[4] + (lanes[2] + lanes[6]) + (lanes[1] + lanes[5] + (lanes[3] + lanes[7]));
}

// e^x for |x| held to 700: 1 + r + r^2 q(r) times a power of two, without branches.
inline double exp_held(double x) {
  x = x < -700.0 ? -700.0 : x;
  x = x > 700.0 ? 700.0 : x;
  const double shifted = x * kLog2e + kRound64;
  const double n = shifted - kRound64;
  const double r = (x - n * kLn2High64) - n * kLn2Low64;
  double e = kExp64[9];
  for (int i = 8; i >= 0; i--) e = e * r + kExp64[i];
  e = e * r * r + r + 1.0;
  uint64_t bits, power;
  std::memcpy(&bits, &e, sizeof bits);
  std::memcpy(&power, &shifted, sizeof power);
  bits += power << 52;
  std::memcpy(&e, &bits, sizeof e);
  return e;
}

inline double held(double x, double least, double most) {
  const double above = x < least ? least : x;
  return above > most ? most : above;
}

// Calls body(i, lane) for every i, the last ones in the first lanes.
template <class Body>
inline __attribute__((always_inline)) void in_lanes(int64_t count, Body&& body) {
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; lane++) body(i + lane, lane);
  }
  for (int64_t i = whole; i < count; i++) body(i, static_cast<int>(i - whole));
}

double sum_of(const double* values, int64_t count) {
  double lanes[kLanes] = {};
  in_lanes(count, [&](int64_t i, int lane) { lanes[lane] += values[i]; });
  return reduce_lanes(lanes);
}

// Sum of (x - mean x)(y - mean y).
double products_of(const double* x, double mean_x, const double* y, double mean_y, int64_t count) {
  double lanes[kLanes] = {};
  in_lanes(count, [&](int64_t i, int lane) { lanes[lane] += (x[i] - mean_x) * (y[i] - mean_y); });
  return reduce_lanes(lanes);
}

void moments(const TokenRun& run, double* figures) {
  const double n = static_cast<double>(run.tokens);
  double mean_log_prob = 0, mean_advantage = 0;
  if (run.log_prob != nullptr) {
    figures[kLogProb] = sum_of(run.log_prob, run.tokens);
    mean_log_prob = figures[kLogProb] / n;
    figures[kLogProbSquares] = products_of(run.log_prob, mean_log_prob, run.log_prob, mean_log_prob, run.tokens);
  }
  if (run.advantage != nullptr) {
    figures[kAdvantage] = sum_of(run.advantage, run.tokens);
    mean_advantage = figures[kAdvantage] / n;
    figures[kAdvantageSquares] = products_of(run.advantage, mean_advantage, run.advantage, mean_advantage, run.tokens);
  }
  if (run.log_prob != nullptr && run.advantage != nullptr) {
    figures[kProducts] = products_of(run.advantage, mean_advantage, run.log_prob, mean_log_prob, run.tokens);
  }
  if (run.entropy != nullptr) {
    figures[kEntropy] = sum_of(run.entropy, run.tokens);
    const double mean = figures[kEntropy] / n;
    figures[kEntropySquares] = products_of(run.entropy, mean, run.entropy, mean, run.tokens);
  }
}

// Tokens whose intermediate values stand in the nearest cache: the compiler makes vectors of loops over arrays, not of a sum
// whose every term is an exponential.
constexpr int64_t kStretch = 256;
static_assert(kStretch % kLanes == 0, "a lane goes on from stretch to stretch");

struct LaneSum {
  double lanes[kLanes] = {};
  void add(const double* values, int64_t count) {
    double* sums = lanes;
    in_lanes(count, [&](int64_t i, int lane) { sums[lane] += values[i]; });
  }
  double total() const { return reduce_lanes(lanes); }
};

void ratios(const TokenRun& run, double low, double high, double* figures) {
  LaneSum sum, absolute, divergence, above, below;
  double d[kStretch], size[kStretch], excess[kStretch], over[kStretch], under[kStretch];
  for (int64_t begin = 0; begin < run.tokens; begin += kStretch) {
    const int64_t count = run.tokens - begin < kStretch ? run.tokens - begin : kStretch;
    const double* now = run.log_prob + begin;
    const double* old = run.old_log_prob + begin;
    const double* advantage = run.advantage == nullptr ? nullptr : run.advantage + begin;
    for (int64_t i = 0; i < count; i++) {
      d[i] = now[i] - old[i];
      size[i] = std::fabs(d[i]);
      excess[i] = exp_held(d[i]);
    }
    if (advantage != nullptr) {
      for (int64_t i = 0; i < count; i++) over[i] = (advantage[i] > 0) & (excess[i] > high) ? 1.0 : 0.0;
      for (int64_t i = 0; i < count; i++) under[i] = (advantage[i] < 0) & (excess[i] < low) ? 1.0 : 0.0;
      above.add(over, count);
      below.add(under, count);
    }
    for (int64_t i = 0; i < count; i++) excess[i] = excess[i] - d[i] - 1.0;
    sum.add(d, count);
    absolute.add(size, count);
    divergence.add(excess, count);
  }
  figures[kLogRatio] = sum.total();
  figures[kAbsoluteLogRatio] = absolute.total();
  figures[kOldDivergence] = divergence.total();
  figures[kClippedHigh] = above.total();
  figures[kClippedLow] = below.total();
}

void divergence_from_reference(const TokenRun& run, double* figures) {
  LaneSum sum, divergence;
  double d[kStretch], excess[kStretch];
  for (int64_t begin = 0; begin < run.tokens; begin += kStretch) {
    const int64_t count = run.tokens - begin < kStretch ? run.tokens - begin : kStretch;
    const double* reference = run.reference_log_prob + begin;
    const double* now = run.log_prob + begin;
    for (int64_t i = 0; i < count; i++) {
      const double ratio = reference[i] - now[i];
      d[i] = -ratio;
      excess[i] = exp_held(ratio) - ratio - 1.0;
    }
    sum.add(d, count);
    divergence.add(excess, count);
  }
  figures[kReferenceLogRatio] = sum.total();
  figures[kReferenceDivergence] = divergence.total();
}

// (A / q) x (1 - x)(ln x + H) of one token.
struct TokenChange {
  double omega, tendency, held_probability;
};

inline __attribute__((always_inline)) TokenChange token_change(double log_prob, double old_log_prob, double entropy,
                                                              double advantage) {
  const double log_x = held(log_prob, kLeastLog, kMostLog);
  const double log_q = held(old_log_prob, kLeastLog, 0.0);
  const double tendency = log_x + entropy;
  const double omega = advantage * exp_held(log_x - log_q) * (1.0 - exp_held(log_x)) * tendency;
  return {omega, tendency, (log_x != log_prob) | (log_q != old_log_prob) ? 1.0 : 0.0};
}

// 1 where the advantage has the sign `side` and the tendency the sign `direction`.
inline double in_quadrant(double advantage, double tendency, double side, double direction) {
  return (advantage * side > 0) & (tendency * direction > 0) ? 1.0 : 0.0;
}

void quadrants(const TokenRun& run, double* figures) {
  LaneSum counts[4], omegas[4], limits;
  double omega[kStretch], tendency[kStretch], limit[kStretch], inside[kStretch];
  for (int64_t begin = 0; begin < run.tokens; begin += kStretch) {
    const int64_t count = run.tokens - begin < kStretch ? run.tokens - begin : kStretch;
    const double* now = run.log_prob + begin;
    const double* old = run.old_log_prob + begin;
    const double* entropy = run.entropy + begin;
    const double* advantage = run.advantage + begin;
    for (int64_t i = 0; i < count; i++) {
      const TokenChange change = token_change(now[i], old[i], entropy[i], advantage[i]);
      omega[i] = change.omega;
      tendency[i] = change.tendency;
      limit[i] = change.held_probability;
    }
    limits.add(limit, count);
    for (int q = 0; q < 4; q++) {
      const double side = q < 2 ? 1.0 : -1.0, direction = q % 2 == 0 ? 1.0 : -1.0;
      for (int64_t i = 0; i < count; i++) inside[i] = in_quadrant(advantage[i], tendency[i], side, direction);
      counts[q].add(inside, count);
      for (int64_t i = 0; i < count; i++) inside[i] *= omega[i];
      omegas[q].add(inside, count);
    }
  }
  for (int q = 0; q < 4; q++) {
    figures[kQuadrantCounts + q] = counts[q].total();
    figures[kQuadrantOmegas + q] = omegas[q].total();
  }
  figures[kHeldProbabilities] = limits.total();
}

void run_figures(const TokenRun& run, double clip_low, double clip_high, double* figures) {
  std::memset(figures, 0, kResponseFields * sizeof(double));
  figures[kCount] = static_cast<double>(run.tokens);
  if (run.tokens == 0) return;
  moments(run, figures);
  if (run.log_prob == nullptr) return;
  if (run.old_log_prob != nullptr) ratios(run, 1.0 - clip_low, 1.0 + clip_high, figures);
  if (run.reference_log_prob != nullptr) divergence_from_reference(run, figures);
  if (run.old_log_prob != nullptr && run.entropy != nullptr && run.advantage != nullptr) quadrants(run, figures);
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

void run_omegas(const TokenRun& run, const uint8_t* mask, double* omegas) {
  for (int64_t i = 0; i < run.tokens; i++) {
    const double omega =
        token_change(run.log_prob[i], run.old_log_prob[i], run.entropy[i], run.advantage[i]).omega;
    omegas[i] = mask[i] != 0 ? omega : 0.0;
  }
}

void run_above(const double* values, const uint8_t* mask, int64_t tokens, const double* thresholds,
               int64_t threshold_count, double* sums) {
  double chosen[kStretch];
  for (int64_t t = 0; t < threshold_count; t++) {
    LaneSum sum;
    for (int64_t begin = 0; begin < tokens; begin += kStretch) {
      const int64_t count = tokens - begin < kStretch ? tokens - begin : kStretch;
      for (int64_t i = 0; i < count; i++) {
        const double value = values[begin + i];
        chosen[i] = (mask[begin + i] != 0) & (value > thresholds[t]) ? value : 0.0;
      }
      sum.add(chosen, count);
    }
    sums[t] = sum.total();
  }
}

constexpr PolicyTokenLoops kPolicyTokenLoops = {run_figures, run_covariances, run_omegas, run_above};

}  // namespace
}  // namespace surprisal
