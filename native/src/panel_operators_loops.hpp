// The loops of panel_operators, compiled once for every instruction set. Sixteen stocks run side by side; every one of them
// takes the steps of src/kernels/panel-operators-reference.ts, in its order, so that the bits are the same.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "panel_operators.hpp"

namespace surprisal {
namespace {

constexpr int kLanes = kPanelLanes;
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// Rows of sixteen values.
class Rows {
 public:
  explicit Rows(int64_t rows) : values_(static_cast<size_t>(rows * kLanes)) {}
  double* operator[](int64_t row) { return values_.data() + row * kLanes; }

 private:
  std::vector<double> values_;
};

template <class T>
void gather(const T* x, const RollingPanel<T>& panel, int64_t first, int64_t count, Rows& rows) {
  for (int64_t t = 0; t < panel.days; t++) {
    const T* from = x + t * panel.stocks + first;
    double* to = rows[t];
    if (count == kLanes) {
      for (int l = 0; l < kLanes; l++) to[l] = static_cast<double>(from[l]);
    } else {
      for (int64_t l = 0; l < count; l++) to[l] = static_cast<double>(from[l]);
    }
  }
}

struct Add {
  static double join(double a, double b) { return a + b; }
};
struct Greatest {
  static double join(double a, double b) { return (a > b) | (a != a) ? a : b; }
};
struct Least {
  static double join(double a, double b) { return (a < b) | (a != a) ? a : b; }
};

// Prefix of the block of the day joined to the suffix of the block before.
template <class Join>
void slide_plain(Rows& x, Rows& out, int64_t days, int64_t window, bool mean) {
  Rows suffix(window);
  double prefix[kLanes];
  const double divisor = static_cast<double>(window);
  for (int64_t start = 0; start < days; start += window) {
    for (int64_t k = 0; k < window && start + k < days; k++) {
      const int64_t t = start + k;
      const double* now = x[t];
      if (k == 0) {
        for (int l = 0; l < kLanes; l++) prefix[l] = now[l];
      } else {
        for (int l = 0; l < kLanes; l++) prefix[l] = Join::join(prefix[l], now[l]);
      }
      if (t < window - 1) continue;
      double* to = out[t];
      if (k == window - 1) {
        for (int l = 0; l < kLanes; l++) to[l] = prefix[l];
      } else {
        const double* rest = suffix[k + 1];
        for (int l = 0; l < kLanes; l++) to[l] = Join::join(rest[l], prefix[l]);
      }
      if (mean) {
        for (int l = 0; l < kLanes; l++) to[l] = to[l] / divisor;
      }
    }
    if (start + window > days) break;
    for (int l = 0; l < kLanes; l++) suffix[window - 1][l] = x[start + window - 1][l];
    for (int64_t k = window - 2; k >= 0; k--) {
      const double* now = x[start + k];
      const double* rest = suffix[k + 1];
      double* to = suffix[k];
      for (int l = 0; l < kLanes; l++) to[l] = Join::join(now[l], rest[l]);
    }
  }
}

// Root without errno, so that it vectorises.
inline void roots(double* values) {
  for (int l = 0; l < kLanes; l++) values[l] = std::sqrt(values[l]);
}

// Variances: Welford's update within a part, Chan's formula between parts.
void slide_variance(Rolling code, Rows& x, Rows& out, int64_t days, int64_t window) {
  Rows means(window + 1), sums(window + 1);
  double mean[kLanes], squares[kLanes];
  const double below = static_cast<double>(window - 1);
  for (int64_t start = 0; start < days; start += window) {
    for (int l = 0; l < kLanes; l++) mean[l] = squares[l] = 0;
    for (int64_t k = 0; k < window && start + k < days; k++) {
      const int64_t t = start + k;
      const double* now = x[t];
      const double inverse = 1.0 / static_cast<double>(k + 1);
      for (int l = 0; l < kLanes; l++) {
        const double gap = now[l] - mean[l];
        mean[l] += gap * inverse;
        squares[l] += gap * (now[l] - mean[l]);
      }
      if (t < window - 1) continue;
      double* to = out[t];
      if (k == window - 1) {
        for (int l = 0; l < kLanes; l++) to[l] = squares[l] / below;
      } else {
        const double share = static_cast<double>((k + 1) * (window - 1 - k)) / static_cast<double>(window);
        const double* rest_mean = means[k + 1];
        const double* rest = sums[k + 1];
        for (int l = 0; l < kLanes; l++) {
          const double gap = mean[l] - rest_mean[l];
          to[l] = (squares[l] + rest[l] + gap * gap * share) / below;
        }
      }
      if (code == Rolling::Std) roots(to);
    }
    if (start + window > days) break;
    for (int l = 0; l < kLanes; l++) means[window][l] = sums[window][l] = 0;
    for (int64_t k = window - 1; k >= 0; k--) {
      const double* now = x[start + k];
      const double inverse = 1.0 / static_cast<double>(window - k);
      for (int l = 0; l < kLanes; l++) {
        const double gap = now[l] - means[k + 1][l];
        means[k][l] = means[k + 1][l] + gap * inverse;
        sums[k][l] = sums[k + 1][l] + gap * (now[l] - means[k][l]);
      }
    }
  }
}

void slide_pairs(Rolling code, Rows& x, Rows& y, Rows& out, int64_t days, int64_t window) {
  Rows mean_x(window + 1), mean_y(window + 1), squares_x(window + 1), squares_y(window + 1), products(window + 1);
  double mx[kLanes], my[kLanes], xx[kLanes], yy[kLanes], xy[kLanes];
  const double below = static_cast<double>(window - 1);
  for (int64_t start = 0; start < days; start += window) {
    for (int l = 0; l < kLanes; l++) mx[l] = my[l] = xx[l] = yy[l] = xy[l] = 0;
    for (int64_t k = 0; k < window && start + k < days; k++) {
      const int64_t t = start + k;
      const double* a = x[t];
      const double* b = y[t];
      const double inverse = 1.0 / static_cast<double>(k + 1);
      for (int l = 0; l < kLanes; l++) {
        const double dx = a[l] - mx[l];
        const double dy = b[l] - my[l];
        mx[l] += dx * inverse;
        my[l] += dy * inverse;
        const double ry = b[l] - my[l];
        xx[l] += dx * (a[l] - mx[l]);
        yy[l] += dy * ry;
        xy[l] += dx * ry;
      }
      if (t < window - 1) continue;
      double* to = out[t];
      const bool whole = k == window - 1;
      const double share = whole ? 0 : static_cast<double>((k + 1) * (window - 1 - k)) / static_cast<double>(window);
      double sxx[kLanes], syy[kLanes], sxy[kLanes];
      for (int l = 0; l < kLanes; l++) {
        sxx[l] = xx[l];
        syy[l] = yy[l];
        sxy[l] = xy[l];
      }
      if (!whole) {
        for (int l = 0; l < kLanes; l++) {
          const double gx = mx[l] - mean_x[k + 1][l];
          const double gy = my[l] - mean_y[k + 1][l];
          sxx[l] = xx[l] + squares_x[k + 1][l] + gx * gx * share;
          syy[l] = yy[l] + squares_y[k + 1][l] + gy * gy * share;
          sxy[l] = xy[l] + products[k + 1][l] + gx * gy * share;
        }
      }
      if (code == Rolling::Cov) {
        for (int l = 0; l < kLanes; l++) to[l] = sxy[l] / below;
      } else {
        double divisor[kLanes];
        for (int l = 0; l < kLanes; l++) divisor[l] = sxx[l] * syy[l];
        roots(divisor);
        for (int l = 0; l < kLanes; l++) to[l] = sxy[l] / (sxx[l] < 1e-6 || syy[l] < 1e-6 ? 1.0 : divisor[l]);
      }
    }
    if (start + window > days) break;
    for (int l = 0; l < kLanes; l++) {
      mean_x[window][l] = mean_y[window][l] = squares_x[window][l] = squares_y[window][l] = products[window][l] = 0;
    }
    for (int64_t k = window - 1; k >= 0; k--) {
      const double* a = x[start + k];
      const double* b = y[start + k];
      const double inverse = 1.0 / static_cast<double>(window - k);
      for (int l = 0; l < kLanes; l++) {
        const double dx = a[l] - mean_x[k + 1][l];
        const double dy = b[l] - mean_y[k + 1][l];
        mean_x[k][l] = mean_x[k + 1][l] + dx * inverse;
        mean_y[k][l] = mean_y[k + 1][l] + dy * inverse;
        const double ry = b[l] - mean_y[k][l];
        squares_x[k][l] = squares_x[k + 1][l] + dx * (a[l] - mean_x[k][l]);
        squares_y[k][l] = squares_y[k + 1][l] + dy * ry;
        products[k][l] = products[k + 1][l] + dx * ry;
      }
    }
  }
}

void slide_linear(Rows& x, Rows& out, int64_t days, int64_t window) {
  const double total = static_cast<double>(window * (window - 1)) / 2;
  Rows sums(window), weighted(window);
  double prefix[kLanes], prefix_weighted[kLanes];
  for (int64_t start = 0; start < days; start += window) {
    for (int64_t k = 0; k < window && start + k < days; k++) {
      const int64_t t = start + k;
      const double* now = x[t];
      if (k == 0) {
        for (int l = 0; l < kLanes; l++) {
          prefix[l] = now[l];
          prefix_weighted[l] = 0;
        }
      } else {
        for (int l = 0; l < kLanes; l++) {
          prefix[l] += now[l];
          prefix_weighted[l] += static_cast<double>(k) * now[l];
        }
      }
      if (t < window - 1) continue;
      double* to = out[t];
      const double* oldest = x[t - window + 1];
      if (k == window - 1) {
        for (int l = 0; l < kLanes; l++) to[l] = (prefix_weighted[l] + 0.0 * oldest[l]) / total;
      } else {
        const double ahead = static_cast<double>(window - 1 - k);
        const double* rest = weighted[k + 1];
        for (int l = 0; l < kLanes; l++) {
          to[l] = (rest[l] + prefix_weighted[l] + ahead * prefix[l] + 0.0 * oldest[l]) / total;
        }
      }
    }
    if (start + window > days) break;
    for (int l = 0; l < kLanes; l++) {
      sums[window - 1][l] = x[start + window - 1][l];
      weighted[window - 1][l] = 0;
    }
    for (int64_t k = window - 2; k >= 0; k--) {
      for (int l = 0; l < kLanes; l++) {
        weighted[k][l] = weighted[k + 1][l] + sums[k + 1][l];
        sums[k][l] = x[start + k][l] + sums[k + 1][l];
      }
    }
  }
}

void slide_exponential(Rows& x, Rows& out, int64_t days, int64_t window) {
  const double decay = 1 - 2.0 / static_cast<double>(window + 1);
  std::vector<double> powers(static_cast<size_t>(window + 1), 1.0);
  for (int64_t k = 1; k <= window; k++) powers[k] = powers[k - 1] * decay;
  double total = 0;
  for (int64_t k = 1; k <= window; k++) total += powers[k];
  Rows suffix(window);
  double prefix[kLanes];
  for (int64_t start = 0; start < days; start += window) {
    for (int64_t k = 0; k < window && start + k < days; k++) {
      const int64_t t = start + k;
      const double* now = x[t];
      if (k == 0) {
        for (int l = 0; l < kLanes; l++) prefix[l] = now[l];
      } else {
        for (int l = 0; l < kLanes; l++) prefix[l] = decay * prefix[l] + now[l];
      }
      if (t < window - 1) continue;
      double* to = out[t];
      if (k == window - 1) {
        for (int l = 0; l < kLanes; l++) to[l] = (decay * prefix[l]) / total;
      } else {
        const double power = powers[k + 1];
        const double* rest = suffix[k + 1];
        for (int l = 0; l < kLanes; l++) to[l] = (decay * (prefix[l] + power * rest[l])) / total;
      }
    }
    if (start + window > days) break;
    for (int l = 0; l < kLanes; l++) suffix[window - 1][l] = x[start + window - 1][l];
    for (int64_t k = window - 2; k >= 0; k--) {
      const double power = powers[window - 1 - k];
      for (int l = 0; l < kLanes; l++) suffix[k][l] = suffix[k + 1][l] + power * x[start + k][l];
    }
  }
}

void slide_higher_moments(Rolling code, Rows& x, Rows& out, int64_t days, int64_t window) {
  Rows means(days);
  slide_plain<Add>(x, means, days, window, true);
  const double length = static_cast<double>(window);
  const double below = static_cast<double>(window - 1);
  double second[kLanes], higher[kLanes];
  for (int64_t t = window - 1; t < days; t++) {
    const double* mean = means[t];
    for (int l = 0; l < kLanes; l++) second[l] = higher[l] = 0;
    for (int64_t j = t - window + 1; j <= t; j++) {
      const double* now = x[j];
      if (code == Rolling::Mad) {
        for (int l = 0; l < kLanes; l++) higher[l] += std::fabs(now[l] - mean[l]);
      } else if (code == Rolling::Skew) {
        for (int l = 0; l < kLanes; l++) {
          const double gap = now[l] - mean[l];
          const double square = gap * gap;
          second[l] += square;
          higher[l] += square * gap;
        }
      } else {
        for (int l = 0; l < kLanes; l++) {
          const double gap = now[l] - mean[l];
          const double square = gap * gap;
          second[l] += square;
          higher[l] += square * square;
        }
      }
    }
    double* to = out[t];
    if (code == Rolling::Mad) {
      for (int l = 0; l < kLanes; l++) to[l] = higher[l] / length;
    } else if (code == Rolling::Skew) {
      for (int l = 0; l < kLanes; l++) {
        const double variance = second[l] / length;
        to[l] = higher[l] / length / (variance * std::sqrt(variance));
      }
    } else {
      for (int l = 0; l < kLanes; l++) {
        const double variance = second[l] / below;
        to[l] = higher[l] / length / (variance * variance) - 3;
      }
    }
  }
}

// One stock after the other: a sorted window that one value leaves and one enters a day.
void slide_median(Rows& x, Rows& out, int64_t days, int64_t window, int64_t count) {
  std::vector<double> sorted(static_cast<size_t>(window));
  for (int64_t l = 0; l < count; l++) {
    int64_t held = 0;
    for (int64_t t = 0; t < days; t++) {
      const double gone = t >= window ? x[t - window][l] : kMissing;
      if (gone == gone) {
        int64_t at = 0;
        while (sorted[at] < gone) at++;
        held--;
        for (; at < held; at++) sorted[at] = sorted[at + 1];
      }
      const double now = x[t][l];
      if (now == now) {
        int64_t at = held++;
        for (; at > 0 && sorted[at - 1] >= now; at--) sorted[at] = sorted[at - 1];
        sorted[at] = now;
      }
      if (t >= window - 1) out[t][l] = held < window ? kMissing : sorted[(window - 1) >> 1];
    }
  }
}

void slide_rank(Rows& x, Rows& out, int64_t days, int64_t window) {
  const double divisor = 2 * static_cast<double>(window);
  double above[kLanes], not_below[kLanes];
  for (int64_t t = window - 1; t < days; t++) {
    const double* last = x[t];
    for (int l = 0; l < kLanes; l++) above[l] = not_below[l] = 0;
    for (int64_t j = t - window + 1; j <= t; j++) {
      const double* now = x[j];
      for (int l = 0; l < kLanes; l++) {
        above[l] += last[l] < now[l] ? 1.0 : 0.0;
        not_below[l] += last[l] <= now[l] ? 1.0 : 0.0;
      }
    }
    double* to = out[t];
    for (int l = 0; l < kLanes; l++) {
      to[l] = (not_below[l] + above[l] + (not_below[l] > above[l] ? 1.0 : 0.0)) / divisor;
    }
  }
}

template <class T>
void rolling_lanes(Rolling code, const RollingPanel<T>& panel, int64_t first, int64_t count) {
  const int64_t days = panel.days, window = panel.window, stocks = panel.stocks;
  const int64_t lead = code == Rolling::Ref || code == Rolling::Delta ? window : window - 1;
  const int64_t missing = lead < days ? lead : days;
  for (int64_t t = 0; t < missing; t++) {
    for (int64_t l = 0; l < count; l++) panel.out[t * stocks + first + l] = static_cast<T>(kMissing);
  }
  if (lead >= days) return;
  if (code == Rolling::Ref || code == Rolling::Delta) {
    for (int64_t t = lead; t < days; t++) {
      const T* now = panel.x + t * stocks + first;
      const T* before = now - window * stocks;
      T* to = panel.out + t * stocks + first;
      if (code == Rolling::Ref) {
        for (int64_t l = 0; l < count; l++) to[l] = before[l];
      } else {
        for (int64_t l = 0; l < count; l++) {
          to[l] = static_cast<T>(static_cast<double>(now[l]) - static_cast<double>(before[l]));
        }
      }
    }
    return;
  }
  Rows x(days), out(days);
  gather(panel.x, panel, first, count, x);
  switch (code) {
    case Rolling::Sum:
      slide_plain<Add>(x, out, days, window, false);
      break;
    case Rolling::Mean:
      slide_plain<Add>(x, out, days, window, true);
      break;
    case Rolling::Max:
      slide_plain<Greatest>(x, out, days, window, false);
      break;
    case Rolling::Min:
      slide_plain<Least>(x, out, days, window, false);
      break;
    case Rolling::Std:
    case Rolling::Var:
      slide_variance(code, x, out, days, window);
      break;
    case Rolling::Skew:
    case Rolling::Kurt:
    case Rolling::Mad:
      slide_higher_moments(code, x, out, days, window);
      break;
    case Rolling::Med:
      slide_median(x, out, days, window, count);
      break;
    case Rolling::Rank:
      slide_rank(x, out, days, window);
      break;
    case Rolling::Wma:
      slide_linear(x, out, days, window);
      break;
    case Rolling::Ema:
      slide_exponential(x, out, days, window);
      break;
    default: {
      Rows y(days);
      gather(panel.y, panel, first, count, y);
      slide_pairs(code, x, y, out, days, window);
    }
  }
  for (int64_t t = lead; t < days; t++) {
    T* to = panel.out + t * stocks + first;
    const double* from = out[t];
    for (int64_t l = 0; l < count; l++) to[l] = static_cast<T>(from[l]);
  }
}

template <class T, class Operation>
void apply(const PanelOperand<T>& x, const PanelOperand<T>& y, T* out, int64_t begin, int64_t end, Operation operation) {
  if (x.values == nullptr && y.values == nullptr) {
    for (int64_t i = begin; i < end; i++) out[i] = static_cast<T>(operation(x.constant, y.constant));
  } else if (x.values == nullptr) {
    for (int64_t i = begin; i < end; i++) {
      out[i] = static_cast<T>(operation(x.constant, static_cast<double>(y.values[i])));
    }
  } else if (y.values == nullptr) {
    for (int64_t i = begin; i < end; i++) {
      out[i] = static_cast<T>(operation(static_cast<double>(x.values[i]), y.constant));
    }
  } else {
    for (int64_t i = begin; i < end; i++) {
      out[i] = static_cast<T>(operation(static_cast<double>(x.values[i]), static_cast<double>(y.values[i])));
    }
  }
}

template <class T>
void elementwise_run(Elementwise code, const PanelOperand<T>& x, const PanelOperand<T>& y, T* out, int64_t begin,
                     int64_t end) {
  switch (code) {
    case Elementwise::Abs:
      return apply(x, y, out, begin, end, [](double a, double) { return std::fabs(a); });
    case Elementwise::Sign:
      return apply(x, y, out, begin, end, [](double a, double) { return (a > 0 ? 1.0 : 0.0) - (a < 0 ? 1.0 : 0.0); });
    case Elementwise::Add:
      return apply(x, y, out, begin, end, [](double a, double b) { return a + b; });
    case Elementwise::Sub:
      return apply(x, y, out, begin, end, [](double a, double b) { return a - b; });
    case Elementwise::Mul:
      return apply(x, y, out, begin, end, [](double a, double b) { return a * b; });
    case Elementwise::Div:
      return apply(x, y, out, begin, end, [](double a, double b) { return a / b; });
    case Elementwise::Greater:
      return apply(x, y, out, begin, end, [](double a, double b) { return Greatest::join(a, b); });
    case Elementwise::Less:
      return apply(x, y, out, begin, end, [](double a, double b) { return Least::join(a, b); });
    default:
      return;
  }
}

constexpr int kSums = 8;

inline double add_up(const double* sums) {
  return sums[0] + sums[4] + (sums[2] + sums[6]) + (sums[1] + sums[5] + (sums[3] + sums[7]));
}

// Calls body(i, lane) for every stock, eight side by side.
template <class Body>
void in_eights(int64_t stocks, Body&& body) {
  const int64_t whole = stocks - stocks % kSums;
  for (int64_t i = 0; i < whole; i += kSums) {
    for (int lane = 0; lane < kSums; lane++) body(i + lane, lane);
  }
  for (int64_t i = whole; i < stocks; i++) body(i, static_cast<int>(i - whole));
}

template <class T>
double normalise_day(const T* x, T* z, int64_t stocks) {
  double sums[kSums] = {}, counts[kSums] = {}, rest[kSums] = {}, squares[kSums] = {}, kept[kSums] = {};
  in_eights(stocks, [&](int64_t i, int lane) {
    const double value = static_cast<double>(x[i]);
    sums[lane] += value != value ? 0.0 : value;
    counts[lane] += value != value ? 0.0 : 1.0;
  });
  const double present = add_up(counts);
  double mean = add_up(sums) / present;
  // Corrected by what is left about it: a value that is the mean must get the score 0, which is that of missing values, or
  // ranks would tell them apart.
  in_eights(stocks, [&](int64_t i, int lane) {
    const double value = static_cast<double>(x[i]);
    rest[lane] += value != value ? 0.0 : value - mean;
  });
  mean += add_up(rest) / present;
  in_eights(stocks, [&](int64_t i, int lane) {
    const double value = static_cast<double>(x[i]);
    const double gap = value - mean;
    squares[lane] += value != value ? 0.0 : gap * gap;
  });
  const double deviation = std::sqrt(add_up(squares) / present);
  in_eights(stocks, [&](int64_t i, int lane) {
    const double score = (static_cast<double>(x[i]) - mean) / deviation;
    const T stored = static_cast<T>(score != score ? 0.0 : score);
    z[i] = stored;
    kept[lane] += static_cast<double>(stored) * static_cast<double>(stored);
  });
  return std::sqrt(add_up(kept) / static_cast<double>(stocks));
}

template <class T>
double product_day(const T* a, const T* b, int64_t stocks) {
  double sums[kSums] = {};
  in_eights(stocks, [&](int64_t i, int lane) { sums[lane] += static_cast<double>(a[i]) * static_cast<double>(b[i]); });
  return add_up(sums);
}

template <class T>
void moments_day(const T* x, const T* y, int64_t stocks, double* out) {
  double sum_x[kSums] = {}, sum_y[kSums] = {}, counts[kSums] = {}, xx[kSums] = {}, yy[kSums] = {}, xy[kSums] = {};
  in_eights(stocks, [&](int64_t i, int lane) {
    const double a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
    const bool missing = a != a || b != b;
    sum_x[lane] += missing ? 0.0 : a;
    sum_y[lane] += missing ? 0.0 : b;
    counts[lane] += missing ? 0.0 : 1.0;
  });
  const double n = add_up(counts);
  const double mean_x = add_up(sum_x) / n, mean_y = add_up(sum_y) / n;
  in_eights(stocks, [&](int64_t i, int lane) {
    const double a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
    const bool missing = a != a || b != b;
    const double dx = missing ? 0.0 : a - mean_x, dy = missing ? 0.0 : b - mean_y;
    xx[lane] += dx * dx;
    yy[lane] += dy * dy;
    xy[lane] += dx * dy;
  });
  out[0] = n;
  out[1] = add_up(xx);
  out[2] = add_up(yy);
  out[3] = add_up(xy);
}

template <class T>
constexpr PanelLoops<T> kPanelLoops = {rolling_lanes<T>, elementwise_run<T>, normalise_day<T>, product_day<T>,
                                       moments_day<T>};

}  // namespace
}  // namespace surprisal
