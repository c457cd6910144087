#include "linear_assignment.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kStrip = kAssignmentStrip;

template <class T>
const AssignmentScans<T>& scans_here() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return ScansOf<T>::avx512;
    case Simd::Avx2:
      return ScansOf<T>::avx2;
    default:
      break;
  }
#endif
  return ScansOf<T>::baseline;
}

template <class T>
int64_t first_not_finite(const T* gain, int64_t count) {
  for (int64_t at = 0; at < count; at++) {
    if (!std::isfinite(gain[at])) return at;
  }
  return -1;
}

}  // namespace

template <class T>
int64_t gain_ranges(const T* gain, int64_t n, double* rows, double* columns, int threads) {
  const AssignmentScans<T>& use = scans_here<T>();
  const int64_t strips = (n + kStrip - 1) / kStrip;
  std::vector<double> by_strip(static_cast<size_t>(2 * n * strips));
  std::atomic<bool> finite{true};
  parallel_for(strips, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
      double* own = by_strip.data() + 2 * n * s;
      if (!use.ranges(gain, n, s * kStrip, std::min(n, (s + 1) * kStrip), own, columns)) finite = false;
    }
  });
  if (!finite) return first_not_finite(gain, n * n);
  for (int64_t i = 0; i < n; i++) {
    rows[2 * i] = by_strip[2 * i];
    rows[2 * i + 1] = by_strip[2 * i + 1];
    for (int64_t s = 1; s < strips; s++) {
      rows[2 * i] = std::min(rows[2 * i], by_strip[2 * (n * s + i)]);
      rows[2 * i + 1] = std::max(rows[2 * i + 1], by_strip[2 * (n * s + i) + 1]);
    }
  }
  return -1;
}

template <class T>
void row_candidates(const T* gain, int64_t n, const int32_t* rows, int64_t count, const double* column_duals,
                    const double* above, bool spread, int64_t k, int32_t* columns, double* values, int threads) {
  const AssignmentScans<T>& use = scans_here<T>();
  parallel_for(count, 16, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t i = rows == nullptr ? r : rows[r];
      const double limit = above == nullptr ? -kInfinity : above[i];
      use.row(gain + i * n, column_duals, n, spread ? i : 0, limit, k, columns + r * k, values + r * k);
    }
  });
}

template <class T>
void column_candidates(const T* gain, int64_t n, const double* row_duals, int64_t k, int32_t* rows, int threads) {
  const AssignmentScans<T>& use = scans_here<T>();
  parallel_for((n + kStrip - 1) / kStrip, 1, threads, [&](int64_t begin, int64_t end) {
    std::vector<double> values(static_cast<size_t>(kStrip * k)), limits(static_cast<size_t>(kStrip));
    for (int64_t s = begin; s < end; s++) {
      use.columns(gain, n, s * kStrip, std::min(n, (s + 1) * kStrip), row_duals, k, rows, values.data(), limits.data());
    }
  });
}

template <class T>
void augment_dense(const T* gain, const int32_t* free, int64_t count, PartialAssignment state) {
  const AssignmentScans<T>& use = scans_here<T>();
  const int64_t n = state.n;
  std::vector<double> distance(n), open(n), reached(n);
  std::vector<int64_t> from(n);
  std::vector<int32_t> scanned(n);
  for (int64_t f = 0; f < count; f++) {
    const int32_t source = free[f];
    std::fill(distance.begin(), distance.end(), kInfinity);
    std::copy_n(state.column_duals, n, open.begin());
    int32_t best;
    double base;
    use.row(gain + source * n, state.column_duals, n, 0, -kInfinity, 1, &best, &base);
    int64_t row = source;
    int64_t scans = 0;
    int32_t sink = -1;
    double least;
    for (;;) {
      least = use.relax(gain + row * n, open.data(), base, row, n, distance.data(), from.data());
      int32_t nearest = -1;
      for (int64_t j = 0; j < n && sink < 0; j++) {
        if (distance[j] != least) continue;
        if (state.row_of_column[j] < 0) sink = static_cast<int32_t>(j);
        else if (nearest < 0) nearest = static_cast<int32_t>(j);
      }
      if (sink >= 0) break;
      scanned[scans] = nearest;
      reached[scans++] = least;
      row = state.row_of_column[nearest];
      base = least + (gain[row * n + nearest] - open[nearest]);
      open[nearest] = kInfinity;
      distance[nearest] = kInfinity;
    }
    for (int64_t s = 0; s < scans; s++) state.column_duals[scanned[s]] += std::max(0.0, least - reached[s]);
    flip_path(state, from.data(), source, sink);
    const auto tighten = [&](int32_t column) {
      const int64_t owner = state.row_of_column[column];
      state.row_duals[owner] = gain[owner * n + column] - state.column_duals[column];
    };
    for (int64_t s = 0; s < scans; s++) tighten(scanned[s]);
    tighten(sink);
  }
}

template int64_t gain_ranges(const float*, int64_t, double*, double*, int);
template int64_t gain_ranges(const double*, int64_t, double*, double*, int);
template void row_candidates(const float*, int64_t, const int32_t*, int64_t, const double*, const double*, bool,
                             int64_t, int32_t*, double*, int);
template void row_candidates(const double*, int64_t, const int32_t*, int64_t, const double*, const double*, bool,
                             int64_t, int32_t*, double*, int);
template void column_candidates(const float*, int64_t, const double*, int64_t, int32_t*, int);
template void column_candidates(const double*, int64_t, const double*, int64_t, int32_t*, int);
template void augment_dense(const float*, const int32_t*, int64_t, PartialAssignment);
template void augment_dense(const double*, const int32_t*, int64_t, PartialAssignment);

}  // namespace surprisal
