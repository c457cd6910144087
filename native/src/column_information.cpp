#include "column_information.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr int kMostBins = 99;
constexpr double kNormalIqr = 1.3489795003921634;
constexpr double kNormalRange98 = 4.6526957480816815;
const double kSupport = std::sqrt(5.0);
constexpr int64_t kFewestOfClass = 3;
// A replicate that equals the figure but for rounding counts as reaching it.
constexpr double kTie = 1e-12;

const DensityLoops& density_loops() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kDensityLoopsAvx512;
  if (simd_level() == Simd::Avx2) return kDensityLoopsAvx2;
#endif
  return kDensityLoopsBaseline;
}

double x_log_x(double x) { return x > 0 ? x * std::log(x) : 0; }

// The figure of column j, or its test: `measure(order)` gives the figure when the outcome is taken in that order.
template <class Measure>
void measure_or_test(int64_t j, int64_t n, const ColumnTest& test, double* nats, Measure&& measure) {
  if (test.orders == nullptr) {
    nats[j] = measure(nullptr);
    return;
  }
  for (int64_t b = 0; b < test.replicates; b++) {
    if (test.stop_after > 0 && test.exceedances[j] >= test.stop_after) return;
    const double replicate = measure(test.orders + b * n);
    if (replicate >= nats[j] - kTie) test.exceedances[j]++;
    test.drawn[j]++;
    test.sums[2 * j] += replicate;
    test.sums[2 * j + 1] += replicate * replicate;
  }
}

double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(std::floor(at));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

struct Spread {
  double minimum, maximum, iqr, silverman;
};

Spread spread_of(const std::vector<double>& sorted) {
  const double n = static_cast<double>(sorted.size());
  double mean = 0;
  for (const double x : sorted) mean += x;
  mean /= n;
  double squares = 0;
  for (const double x : sorted) squares += (x - mean) * (x - mean);
  const double deviation = sorted.size() > 1 ? std::sqrt(squares / (n - 1)) : 0;
  Spread spread{sorted.front(), sorted.back(), quantile(sorted, 0.75) - quantile(sorted, 0.25), 0};
  double sigma = std::min(deviation, spread.iqr / kNormalIqr);
  if (!(sigma > 0)) sigma = (quantile(sorted, 0.99) - quantile(sorted, 0.01)) / kNormalRange98;
  if (!(sigma > 0)) sigma = deviation;
  spread.silverman = sigma * std::pow(3 * n / 4, -0.2);
  return spread;
}

// A variable on the grid: value i lies between the grid points index[i] and index[i] + 1.
struct Places {
  double step;
  std::vector<int32_t> index;
  std::vector<double> fraction;
};

void place(const double* x, int64_t n, int64_t points, bool unit_bandwidth, std::vector<double>& sorted, Places& out) {
  sorted.assign(x, x + n);
  std::sort(sorted.begin(), sorted.end());
  const Spread spread = spread_of(sorted);
  const double divisor = !unit_bandwidth ? spread.silverman : spread.iqr > 0 ? spread.iqr : 1;
  const double range = (spread.maximum - spread.minimum) / divisor;
  const double margin = std::max(0.05 * range, kSupport);
  out.step = (range + 2 * margin) / static_cast<double>(points - 1);
  out.index.resize(n);
  out.fraction.resize(n);
  for (int64_t i = 0; i < n; i++) {
    const double at = ((x[i] - spread.minimum) / divisor + margin) / out.step;
    const int64_t below = std::min(points - 2, static_cast<int64_t>(std::floor(at)));
    out.index[i] = static_cast<int32_t>(below);
    out.fraction[i] = at - static_cast<double>(below);
  }
}

// Above this many points their masses are first gathered on the grid, whose cells are then stamped in fours.
constexpr int64_t kMostStampedPoints = 8192;

struct PairScratch {
  std::vector<double> sorted, values, counts, density, marginal;
  std::vector<int32_t> reach;
  std::vector<Stamp> stamps;
  Places places;
};

void radial_kernel(double step_a, double step_b, PairScratch& scratch, StampKernel& kernel) {
  kernel.rows = static_cast<int64_t>(std::floor(kSupport / step_a));
  kernel.columns = static_cast<int64_t>(std::floor(kSupport / step_b));
  kernel.stride = 2 * kernel.columns + 1 + 3 * kLanes;
  // The masses to the right need the column beyond the last.
  kernel.blocks = (2 * kernel.columns + 2 + kLanes - 1) / kLanes;
  scratch.values.assign((2 * kernel.rows + 1) * kernel.stride, 0.0);
  scratch.reach.assign(kernel.blocks, -1);
  for (int64_t r = -kernel.rows; r <= kernel.rows; r++) {
    const double dr = static_cast<double>(r) * step_a;
    double* row = scratch.values.data() + (r + kernel.rows) * kernel.stride + kernel.columns + kLanes;
    for (int64_t c = -kernel.columns; c <= kernel.columns; c++) {
      const double dc = static_cast<double>(c) * step_b;
      const double value = 1 - (dr * dr + dc * dc) / 5;
      if (!(value > 0)) continue;
      row[c] = value;
      // Column c is read by its own block and, one to the left, by that of column c + 1.
      for (const int64_t column : {c, c + 1}) {
        int32_t& reach = scratch.reach[(column + kernel.columns) / kLanes];
        reach = std::max(reach, static_cast<int32_t>(std::abs(r)));
      }
    }
  }
  kernel.values = scratch.values.data();
  kernel.reach = scratch.reach.data();
}

void stamps_of(const Places& a, const Places& b, const int32_t* order, int64_t n, int64_t points,
               PairScratch& scratch) {
  scratch.stamps.clear();
  if (n <= kMostStampedPoints) {
    for (int64_t i = 0; i < n; i++) {
      const int64_t j = order == nullptr ? i : order[i];
      const double u = a.fraction[i];
      const double v = b.fraction[j];
      scratch.stamps.push_back({a.index[i], b.index[j], {(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v}});
    }
    return;
  }
  const int64_t side = points + (points & 1);
  scratch.counts.assign(side * side, 0.0);
  for (int64_t i = 0; i < n; i++) {
    const int64_t j = order == nullptr ? i : order[i];
    double* at = scratch.counts.data() + a.index[i] * side + b.index[j];
    const double u = a.fraction[i];
    const double v = b.fraction[j];
    at[0] += (1 - u) * (1 - v);
    at[1] += (1 - u) * v;
    at[side] += u * (1 - v);
    at[side + 1] += u * v;
  }
  for (int64_t r = 0; r < side; r += 2) {
    for (int64_t c = 0; c < side; c += 2) {
      const double* at = scratch.counts.data() + r * side + c;
      if (at[0] == 0 && at[1] == 0 && at[side] == 0 && at[side + 1] == 0) continue;
      scratch.stamps.push_back(
          {static_cast<int32_t>(r), static_cast<int32_t>(c), {at[0], at[1], at[side], at[side + 1]}});
    }
  }
}

double pair_information(const Places& a, const Places& b, const int32_t* order, int64_t n, int64_t points,
                        const StampKernel& kernel, PairScratch& scratch) {
  const DensityLoops& loops = density_loops();
  stamps_of(a, b, order, n, points, scratch);
  const int64_t stride = points + 5 * kLanes;
  // Stamps of a grid whose last place holds no mass reach one step beyond it.
  scratch.density.assign((points + 5) * stride, 0.0);
  double* density = scratch.density.data() + 2 * stride + 2 * kLanes;
  loops.stamp(scratch.stamps.data(), static_cast<int64_t>(scratch.stamps.size()), kernel, density, stride);
  const int64_t padded = (points + kLanes - 1) / kLanes * kLanes;
  scratch.marginal.assign(padded, 0.0);
  double total = 0;
  double sum = 0;
  loops.fold(density, points, padded, stride, scratch.marginal.data(), &total, &sum);
  for (int64_t c = 0; c < points; c++) sum -= x_log_x(scratch.marginal[c]);
  return std::max(0.0, sum / total + std::log(total));
}

// Adds share times the density of sorted values to out [points].
void add_class_density(const std::vector<double>& sorted, double bandwidth, double share, double low, double step,
                       int64_t points, std::vector<double>& counts, std::vector<double>& kernel, double* out) {
  counts.assign(points, 0.0);
  for (const double x : sorted) {
    const double at = (x - low) / step;
    const int64_t below = std::min(points - 2, static_cast<int64_t>(std::floor(at)));
    counts[below] += 1 - (at - static_cast<double>(below));
    counts[below + 1] += at - static_cast<double>(below);
  }
  const double support = kSupport * bandwidth;
  const int64_t reach = static_cast<int64_t>(std::min<double>(static_cast<double>(points), std::floor(support / step)));
  const double scale = share * 0.75 / (support * static_cast<double>(sorted.size()));
  kernel.resize(2 * reach + 1);
  for (int64_t k = -reach; k <= reach; k++) {
    const double r = static_cast<double>(k) * step / support;
    kernel[k + reach] = std::max(0.0, 1 - r * r);
  }
  for (int64_t g = 0; g < points; g++) {
    const double mass = counts[g] * scale;
    if (mass == 0) continue;
    const int64_t first = std::max<int64_t>(0, g - reach);
    const int64_t last = std::min(points - 1, g + reach);
    const double* values = kernel.data() + reach - g;
    for (int64_t to = first; to <= last; to++) out[to] += mass * values[to];
  }
}

struct ClassScratch {
  std::vector<double> sorted, density, marginal, counts, kernel;
  std::vector<std::vector<double>> members;
};

// `value_order` and `code_order`: which observation's value and class stand at place i; null: its own.
double class_measure(const double* x, const int32_t* codes, int32_t levels, int64_t n, int64_t points,
                     const Spread& pooled, const int32_t* value_order, const int32_t* code_order,
                     ClassScratch& scratch) {
  const double margin = std::max(0.05 * (pooled.maximum - pooled.minimum), kSupport * pooled.silverman);
  const double low = pooled.minimum - margin;
  const double step = ((pooled.maximum - pooled.minimum) + 2 * margin) / static_cast<double>(points - 1);
  const int64_t padded = (points + kLanes - 1) / kLanes * kLanes;
  if (static_cast<int64_t>(scratch.members.size()) < levels) scratch.members.resize(levels);
  for (int32_t c = 0; c < levels; c++) scratch.members[c].clear();
  for (int64_t i = 0; i < n; i++) {
    const int32_t code = codes[code_order == nullptr ? i : code_order[i]];
    scratch.members[code].push_back(x[value_order == nullptr ? i : value_order[i]]);
  }
  scratch.density.assign(levels * padded, 0.0);
  for (int32_t c = 0; c < levels; c++) {
    std::vector<double>& values = scratch.members[c];
    if (static_cast<int64_t>(values.size()) < kFewestOfClass) continue;
    std::sort(values.begin(), values.end());
    const double own = spread_of(values).silverman;
    const double share = static_cast<double>(values.size()) / static_cast<double>(n);
    add_class_density(values, own > 0 ? own : pooled.silverman, share, low, step, points, scratch.counts,
                      scratch.kernel, scratch.density.data() + c * padded);
  }
  scratch.marginal.assign(padded, 0.0);
  double total = 0;
  double sum = 0;
  density_loops().fold(scratch.density.data(), levels, padded, padded, scratch.marginal.data(), &total, &sum);
  for (int64_t g = 0; g < points; g++) sum -= x_log_x(scratch.marginal[g]);
  return std::max(0.0, sum / total + std::log(total));
}

}  // namespace

void regular_bins(const double* columns, int64_t count, int64_t n, int32_t* codes, int32_t* levels, int threads) {
  std::vector<double> table(n + 1);
  for (int64_t k = 0; k <= n; k++) table[k] = x_log_x(static_cast<double>(k));
  double constants[kMostBins + 1];
  for (int d = 2; d <= kMostBins; d++) {
    constants[d] = static_cast<double>(n) * std::log(static_cast<double>(d)) -
                   (d - 1 + std::pow(std::log(static_cast<double>(d)), 2.5));
  }
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      const double* x = columns + j * n;
      const auto [least, most] = std::minmax_element(x, x + n);
      const double low = *least;
      const double range = *most - low;
      double best = -std::numeric_limits<double>::infinity();
      int bins = 2;
      for (int d = 2; d <= kMostBins; d++) {
        const double width = range / d;
        int32_t counts[kMostBins] = {0};
        for (int64_t i = 0; i < n; i++) counts[std::min(d - 1, static_cast<int>((x[i] - low) / width))]++;
        double value = constants[d];
        for (int k = 0; k < d; k++) value += table[counts[k]];
        if (value > best) {
          best = value;
          bins = d;
        }
      }
      const double width = range / bins;
      for (int64_t i = 0; i < n; i++) codes[j * n + i] = std::min(bins - 1, static_cast<int>((x[i] - low) / width));
      levels[j] = bins;
    }
  });
}

void codes_information(const int32_t* columns, const int32_t* levels, int64_t count, int64_t n, const int32_t* outcome,
                       int32_t outcome_levels, const ColumnTest& test, double* nats, int threads) {
  std::vector<double> table(n + 1);
  for (int64_t k = 0; k <= n; k++) table[k] = x_log_x(static_cast<double>(k));
  double outcome_sum = 0;
  {
    std::vector<int64_t> sizes(outcome_levels, 0);
    for (int64_t i = 0; i < n; i++) sizes[outcome[i]]++;
    for (const int64_t size : sizes) outcome_sum += table[size];
  }
  const double size = static_cast<double>(n);
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> cells, sizes;
    for (int64_t j = begin; j < end; j++) {
      const int32_t* codes = columns + j * n;
      sizes.assign(levels[j], 0);
      for (int64_t i = 0; i < n; i++) sizes[codes[i]]++;
      double own_sum = 0;
      for (const int32_t s : sizes) own_sum += table[s];
      measure_or_test(j, n, test, nats, [&](const int32_t* order) {
        cells.assign(static_cast<int64_t>(levels[j]) * outcome_levels, 0);
        for (int64_t i = 0; i < n; i++) {
          cells[static_cast<int64_t>(codes[i]) * outcome_levels + outcome[order == nullptr ? i : order[i]]]++;
        }
        double sum = 0;
        for (const int32_t cell : cells) sum += table[cell];
        return std::max(0.0, (sum - own_sum - outcome_sum) / size + std::log(size));
      });
    }
  });
}

void kernel_information(const double* columns, int64_t count, int64_t n, const double* outcome, int64_t points,
                        bool unit_bandwidth, const ColumnTest& test, double* nats, int threads) {
  Places places;
  std::vector<double> sorted;
  place(outcome, n, points, unit_bandwidth, sorted, places);
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    thread_local PairScratch scratch;
    for (int64_t j = begin; j < end; j++) {
      place(columns + j * n, n, points, unit_bandwidth, scratch.sorted, scratch.places);
      StampKernel kernel;
      radial_kernel(scratch.places.step, places.step, scratch, kernel);
      measure_or_test(j, n, test, nats, [&](const int32_t* order) {
        return pair_information(scratch.places, places, order, n, points, kernel, scratch);
      });
    }
  });
}

void class_information(const double* values, const int32_t* codes, const int32_t* levels, int64_t count, int64_t n,
                       bool columns_are_codes, int64_t points, const ColumnTest& test, double* nats, int threads) {
  Spread shared{};
  std::vector<double> sorted;
  if (columns_are_codes) {
    sorted.assign(values, values + n);
    std::sort(sorted.begin(), sorted.end());
    shared = spread_of(sorted);
  }
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    thread_local ClassScratch scratch;
    for (int64_t j = begin; j < end; j++) {
      const double* x = columns_are_codes ? values : values + j * n;
      const int32_t* c = columns_are_codes ? codes + j * n : codes;
      Spread pooled = shared;
      if (!columns_are_codes) {
        scratch.sorted.assign(x, x + n);
        std::sort(scratch.sorted.begin(), scratch.sorted.end());
        pooled = spread_of(scratch.sorted);
      }
      measure_or_test(j, n, test, nats, [&](const int32_t* order) {
        return class_measure(x, c, levels[j], n, points, pooled, columns_are_codes ? order : nullptr,
                             columns_are_codes ? nullptr : order, scratch);
      });
    }
  });
}

}  // namespace surprisal
