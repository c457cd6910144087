// Eigenvalues of a symmetric tridiagonal matrix by QL and QR sweeps without square roots (Pal, Walker & Kahan; Parlett
// 1998, section 8.15).
#include <algorithm>
#include <cmath>
#include <limits>

#include "symmetric_spectrum.hpp"

namespace surprisal {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon() / 2;
// Sweeps an eigenvalue may take on average; two are usual.
constexpr int64_t kMostSweeps = 30;

// Eigenvalues of [[a, b], [b, c]].
void pair_values(double a, double b, double c, double* first, double* second) {
  const double mean = 0.5 * (a + c);
  const double reach = std::hypot(0.5 * (a - c), b);
  // The one of larger size has no cancellation, the other follows from the determinant.
  const double large = mean < 0 ? mean - reach : mean + reach;
  *first = large;
  *second = large == 0 ? 0 : (std::max(std::fabs(a), std::fabs(c)) / large) * std::min(std::fabs(a), std::fabs(c)) *
                                     ((a < 0) != (c < 0) ? -1 : 1) -
                                 (b / large) * b;
  if (a == 0 || c == 0) *second = large == 0 ? 0 : -(b / large) * b;
}

// Wilkinson's shift for the end `p` of a block with neighbour `next` and squared coupling `square`.
double shift_at(double p, double next, double square) {
  const double coupling = std::sqrt(square);
  const double gap = (next - p) / (2 * coupling);
  const double reach = std::sqrt(gap * gap + 1);
  return p - coupling / (gap + (gap < 0 ? -reach : reach));
}

// One sweep over d[from .. to] with squared couplings; `step` is 1 for QR (from the first to the last), -1 for QL. e
// points so that the coupling between d[i] and d[i + step] is e(i).
template <int kStep>
void sweep(double* d, double* e, int64_t from, int64_t to, double shift) {
  // Coupling between i and i + kStep.
  const auto coupling = [&](int64_t i) -> double& { return e[kStep > 0 ? i : i - 1]; };
  double c = 1;
  double s = 0;
  double gamma = d[from] - shift;
  double p = gamma * gamma;
  for (int64_t i = from; i != to; i += kStep) {
    const double b = coupling(i);
    const double r = p + b;
    if (i != from) coupling(i - kStep) = s * r;
    const double c_before = c;
    c = p / r;
    s = b / r;
    const double gamma_before = gamma;
    const double alpha = d[i + kStep];
    gamma = c * (alpha - shift) - s * gamma_before;
    d[i] = gamma_before + (alpha - gamma);
    p = c != 0 ? (gamma * gamma) / c : c_before * b;
  }
  coupling(to - kStep) = s * p;
  d[to] = shift + gamma;
}

}  // namespace

bool tridiagonal_values(double* d, double* e, int64_t n) {
  int64_t sweeps_left = kMostSweeps * n;
  int64_t block = 0;
  while (block < n) {
    // A block that no zero divides; couplings are judged as they stand.
    int64_t last = block;
    while (last + 1 < n &&
           std::fabs(e[last]) > kEpsilon * std::sqrt(std::fabs(d[last])) * std::sqrt(std::fabs(d[last + 1]))) {
      last++;
    }
    int64_t low = block;
    int64_t high = last;
    block = last + 1;
    if (low == high) continue;
    // Scale so that squares neither overflow nor underflow where they count.
    double norm = 0;
    for (int64_t i = low; i <= high; i++) norm = std::max(norm, std::fabs(d[i]));
    for (int64_t i = low; i < high; i++) norm = std::max(norm, std::fabs(e[i]));
    if (norm == 0) continue;
    const double scale = std::ldexp(1.0, -std::ilogb(norm));
    for (int64_t i = low; i <= high; i++) d[i] *= scale;
    for (int64_t i = low; i < high; i++) {
      e[i] *= scale;
      e[i] *= e[i];
    }
    const int64_t first_of_block = low;
    const int64_t last_of_block = high;
    const double negligible = kEpsilon * kEpsilon;
    // From the end that carries the smaller entries.
    const bool downwards = std::fabs(d[high]) < std::fabs(d[low]);
    while (low <= high) {
      if (!downwards) {
        // QL: eigenvalues settle at `low`.
        int64_t split = low;
        while (split < high && std::fabs(e[split]) > negligible * std::fabs(d[split] * d[split + 1])) split++;
        if (split < high) e[split] = 0;
        if (split == low) {
          low++;
          continue;
        }
        if (split == low + 1) {
          double first, second;
          pair_values(d[low], std::sqrt(e[low]), d[low + 1], &first, &second);
          d[low] = first;
          d[low + 1] = second;
          e[low] = 0;
          low += 2;
          continue;
        }
        if (sweeps_left-- == 0) return false;
        sweep<-1>(d, e, split, low, shift_at(d[low], d[low + 1], e[low]));
      } else {
        int64_t split = high;
        while (split > low && std::fabs(e[split - 1]) > negligible * std::fabs(d[split] * d[split - 1])) split--;
        if (split > low) e[split - 1] = 0;
        if (split == high) {
          high--;
          continue;
        }
        if (split == high - 1) {
          double first, second;
          pair_values(d[high], std::sqrt(e[high - 1]), d[high - 1], &first, &second);
          d[high] = first;
          d[high - 1] = second;
          e[high - 1] = 0;
          high -= 2;
          continue;
        }
        if (sweeps_left-- == 0) return false;
        sweep<1>(d, e, split, high, shift_at(d[high], d[high - 1], e[high - 1]));
      }
    }
    for (int64_t i = first_of_block; i <= last_of_block; i++) d[i] /= scale;
  }
  return true;
}

}  // namespace surprisal
