// Operators on panels [days, stocks], row-major: windows along the days of every stock, z-scores, products, moments and
// ranks within days. Arithmetic is in f64 whatever the values are stored in; missing values are NaN.
#pragma once
#include <cstdint>

namespace surprisal {

// Codes are the positions of the names in ROLLING_NAMES of src/kernels/panel-operators.ts, then Cov and Corr.
enum class Rolling : int {
  Ref, Delta, Sum, Mean, Max, Min, Std, Var, Skew, Kurt, Mad, Med, Rank, Wma, Ema, Cov, Corr
};
constexpr int kRollingOperators = 17;

// Codes are the positions in ELEMENTWISE_NAMES; Log and Pow stay in TypeScript.
enum class Elementwise : int { Abs, Sign, Log, Add, Sub, Mul, Div, Pow, Greater, Less };
constexpr int kElementwiseOperators = 10;

template <class T>
struct RollingPanel {
  const T* x;
  const T* y;  // null but for Cov and Corr
  T* out;
  int64_t days;
  int64_t stocks;
  int64_t window;
};

// An operand: a panel, or a constant where the pointer is null.
template <class T>
struct PanelOperand {
  const T* values;
  double constant;
};

template <class T>
struct PanelLoops {
  // Stocks [first, first + count), count at most kPanelLanes.
  void (*rolling)(Rolling code, const RollingPanel<T>& panel, int64_t first, int64_t count);
  void (*elementwise)(Elementwise code, const PanelOperand<T>& x, const PanelOperand<T>& y, T* out, int64_t begin,
                      int64_t end);
  // One day.
  double (*normalise)(const T* x, T* z, int64_t stocks);
  double (*product)(const T* a, const T* b, int64_t stocks);
  void (*moments)(const T* x, const T* y, int64_t stocks, double* out);
};

constexpr int kPanelLanes = 16;

extern const PanelLoops<float> kPanelLoopsBaselineF32, kPanelLoopsAvx2F32, kPanelLoopsAvx512F32;
extern const PanelLoops<double> kPanelLoopsBaselineF64, kPanelLoopsAvx2F64, kPanelLoopsAvx512F64;

template <class T>
void panel_rolling(Rolling code, const RollingPanel<T>& panel, int threads);

template <class T>
void panel_elementwise(Elementwise code, const PanelOperand<T>& x, const PanelOperand<T>& y, T* out, int64_t count,
                       int threads);

// deviations [days]: root mean square of the scores over all stocks.
template <class T>
void panel_normalise(const T* x, T* z, double* deviations, int64_t days, int64_t stocks, int threads);

template <class T>
void panel_day_products(const T* a, const T* b, double* out, int64_t days, int64_t stocks, int threads);

// out [days, 4]: pairs, squares of x, of y, products, about the means.
template <class T>
void panel_day_moments(const T* x, const T* y, double* out, int64_t days, int64_t stocks, int threads);

// Ranks from 0; `average` of equal values, or else in the order of the stocks. `beside` may be null.
template <class T>
void panel_day_ranks(const T* x, const T* beside, bool average, T* out, int64_t days, int64_t stocks, int threads);

}  // namespace surprisal
