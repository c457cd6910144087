// Eigenvalues of a symmetric tridiagonal matrix by QR sweeps without square roots (Pal, Walker & Kahan; Parlett 1998,
// section 8.15). Long blocks take as many sweeps at once as a vector has lanes, each following the one before it at a
// distance of two entries, with the eigenvalues of the last rows as shifts.
#include <algorithm>
#include <cmath>
#include <limits>

#include "symmetric_spectrum.hpp"

namespace surprisal {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon() / 2;
// Sweeps that an eigenvalue may take on average; two are usual.
constexpr int64_t kMostSweeps = 30;
// A block is worth a chain of sweeps when it is this many times as long as the chain.
constexpr int64_t kChainsWorth = 5;

// Eigenvalues of [[a, b], [b, c]]; b is given as its square.
void pair_values(double* a, double square, double* c) {
  const double mean = 0.5 * (*a + *c);
  const double half = 0.5 * (*a - *c);
  const double reach = std::sqrt(half * half + square);
  // The one of larger size has no cancellation; the other is the determinant over it, which cancels only where it is
  // small beside the matrix.
  const double large = mean < 0 ? mean - reach : mean + reach;
  const double small = large == 0 ? 0 : *a / large * *c - square / large;
  *a = large;
  *c = small;
}

// Wilkinson's shift for the end `last` of a block with neighbour `next` and squared coupling `square` > 0.
double shift_at(double last, double next, double square) {
  const double half = 0.5 * (next - last);
  const double reach = std::sqrt(half * half + square);
  return last - square / (half < 0 ? half - reach : half + reach);
}

// One sweep over d[from .. to] with squared couplings e, from the first entry to the last.
void sweep(double* d, double* e, int64_t from, int64_t to, double shift) {
  double c = 1;
  double s = 0;
  double gamma = d[from] - shift;
  double p = gamma * gamma;
  for (int64_t i = from; i < to; i++) {
    const double b = e[i];
    const double r = p + b;
    if (i > from) e[i - 1] = s * r;
    const double c_before = c;
    c = p / r;
    s = b / r;
    const double gamma_before = gamma;
    const double alpha = d[i + 1];
    gamma = c * (alpha - shift) - s * gamma_before;
    d[i] = gamma_before + (alpha - gamma);
    p = c != 0 ? (gamma * gamma) / c : c_before * b;
  }
  e[to - 1] = s * p;
  d[to] = shift + gamma;
}

// The same in place for d[low .. high] in reverse order.
void reverse(double* d, double* e, int64_t low, int64_t high) {
  std::reverse(d + low, d + high + 1);
  std::reverse(e + low, e + high);
}

// Turns d[low .. high] into eigenvalues; e holds squared couplings, the largest entry of the matrix is about 1.
// `kernels` null: single sweeps only.
bool settle(double* d, double* e, int64_t low, int64_t high, const SpectrumKernels* kernels) {
  int64_t sweeps_left = kMostSweeps * (high - low + 1);
  if (std::fabs(d[low]) < std::fabs(d[high])) reverse(d, e, low, high);
  const auto negligible = [&](int64_t i) {
    return e[i] <= kEpsilon * kEpsilon * (std::fabs(d[i] * d[i + 1]) + kEpsilon);
  };
  while (high > low) {
    int64_t split = high;
    while (split > low && !negligible(split - 1)) split--;
    if (split > low) e[split - 1] = 0;
    if (split == high) {
      high--;
    } else if (split == high - 1) {
      pair_values(d + split, e[split], d + high);
      e[split] = 0;
      high -= 2;
    } else if (kernels != nullptr && high - split >= kChainsWorth * kernels->chain_length) {
      const int64_t length = kernels->chain_length;
      double shifts[kMostChain];
      double couplings[kMostChain];
      std::copy(d + high - length + 1, d + high + 1, shifts);
      std::copy(e + high - length + 1, e + high, couplings);
      if (!settle(shifts, couplings, 0, length - 1, nullptr)) return false;
      if ((sweeps_left -= length) < 0) return false;
      kernels->sweep_chain(d, e, split, high, shifts);
    } else {
      if (--sweeps_left < 0) return false;
      sweep(d, e, split, high, shift_at(d[high], d[high - 1], e[high - 1]));
    }
  }
  return true;
}

}  // namespace

bool tridiagonal_values(double* d, double* e, int64_t n) {
  for (int64_t low = 0, high = 0; low < n; low = high + 1) {
    high = low;
    while (high + 1 < n &&
           std::fabs(e[high]) > kEpsilon * std::sqrt(std::fabs(d[high])) * std::sqrt(std::fabs(d[high + 1]))) {
      high++;
    }
    if (low == high) continue;
    // Scaled to about 1: squares then neither overflow nor underflow where they count.
    double norm = 0;
    for (int64_t i = low; i <= high; i++) norm = std::max(norm, std::fabs(d[i]));
    for (int64_t i = low; i < high; i++) norm = std::max(norm, std::fabs(e[i]));
    const int exponent = std::ilogb(norm);
    for (int64_t i = low; i <= high; i++) d[i] = std::ldexp(d[i], -exponent);
    for (int64_t i = low; i < high; i++) {
      e[i] = std::ldexp(e[i], -exponent);
      e[i] *= e[i];
    }
    if (!settle(d, e, low, high, &spectrum_kernels())) return false;
    for (int64_t i = low; i <= high; i++) d[i] = std::ldexp(d[i], exponent);
  }
  return true;
}

}  // namespace surprisal
