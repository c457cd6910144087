#include "panel_operators.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Values a thread takes at a time.
constexpr int64_t kGrain = 1 << 16;

template <class T>
const PanelLoops<T>& panel_loops();

template <>
const PanelLoops<float>& panel_loops<float>() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kPanelLoopsAvx512F32;
  if (simd_level() == Simd::Avx2) return kPanelLoopsAvx2F32;
#endif
  return kPanelLoopsBaselineF32;
}

template <>
const PanelLoops<double>& panel_loops<double>() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kPanelLoopsAvx512F64;
  if (simd_level() == Simd::Avx2) return kPanelLoopsAvx2F64;
#endif
  return kPanelLoopsBaselineF64;
}

int64_t days_at_a_time(int64_t stocks) { return stocks >= kGrain ? 1 : kGrain / (stocks + 1) + 1; }

struct Placed {
  double value;
  int64_t stock;
};

template <class T>
void rank_day(const T* x, const T* beside, bool average, T* out, int64_t stocks, std::vector<Placed>& present) {
  present.clear();
  for (int64_t s = 0; s < stocks; s++) {
    out[s] = std::numeric_limits<T>::quiet_NaN();
    if (x[s] == x[s] && (beside == nullptr || beside[s] == beside[s])) present.push_back({static_cast<double>(x[s]), s});
  }
  std::sort(present.begin(), present.end(), [](const Placed& a, const Placed& b) {
    return a.value < b.value || (a.value == b.value && a.stock < b.stock);
  });
  const int64_t n = static_cast<int64_t>(present.size());
  for (int64_t i = 0; i < n;) {
    int64_t end = i + 1;
    if (average) {
      while (end < n && present[end].value == present[i].value) end++;
    }
    const double rank = 0.5 * static_cast<double>(i + end - 1);
    for (; i < end; i++) out[present[i].stock] = static_cast<T>(rank);
  }
}

}  // namespace

template <class T>
void panel_rolling(Rolling code, const RollingPanel<T>& panel, int threads) {
  const auto run = panel_loops<T>().rolling;
  const int64_t tiles = (panel.stocks + kPanelLanes - 1) / kPanelLanes;
  parallel_for(tiles, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; tile++) {
      const int64_t first = tile * kPanelLanes;
      run(code, panel, first, std::min<int64_t>(kPanelLanes, panel.stocks - first));
    }
  });
}

template <class T>
void panel_elementwise(Elementwise code, const PanelOperand<T>& x, const PanelOperand<T>& y, T* out, int64_t count,
                       int threads) {
  const auto run = panel_loops<T>().elementwise;
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) { run(code, x, y, out, begin, end); });
}

template <class T>
void panel_normalise(const T* x, T* z, double* deviations, int64_t days, int64_t stocks, int threads) {
  const auto run = panel_loops<T>().normalise;
  parallel_for(days, days_at_a_time(stocks), threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) deviations[t] = run(x + t * stocks, z + t * stocks, stocks);
  });
}

template <class T>
void panel_day_products(const T* a, const T* b, double* out, int64_t days, int64_t stocks, int threads) {
  const auto run = panel_loops<T>().product;
  parallel_for(days, days_at_a_time(stocks), threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) out[t] = run(a + t * stocks, b + t * stocks, stocks);
  });
}

template <class T>
void panel_day_moments(const T* x, const T* y, double* out, int64_t days, int64_t stocks, int threads) {
  const auto run = panel_loops<T>().moments;
  parallel_for(days, days_at_a_time(stocks), threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) run(x + t * stocks, y + t * stocks, stocks, out + t * 4);
  });
}

template <class T>
void panel_day_ranks(const T* x, const T* beside, bool average, T* out, int64_t days, int64_t stocks, int threads) {
  parallel_for(days, days_at_a_time(stocks), threads, [&](int64_t begin, int64_t end) {
    std::vector<Placed> present;
    present.reserve(static_cast<size_t>(stocks));
    for (int64_t t = begin; t < end; t++) {
      const int64_t at = t * stocks;
      rank_day(x + at, beside == nullptr ? nullptr : beside + at, average, out + at, stocks, present);
    }
  });
}

#define INSTANTIATE(T)                                                                                            \
  template void panel_rolling<T>(Rolling, const RollingPanel<T>&, int);                                           \
  template void panel_elementwise<T>(Elementwise, const PanelOperand<T>&, const PanelOperand<T>&, T*, int64_t, int); \
  template void panel_normalise<T>(const T*, T*, double*, int64_t, int64_t, int);                                 \
  template void panel_day_products<T>(const T*, const T*, double*, int64_t, int64_t, int);                        \
  template void panel_day_moments<T>(const T*, const T*, double*, int64_t, int64_t, int);                         \
  template void panel_day_ranks<T>(const T*, const T*, bool, T*, int64_t, int64_t, int);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace surprisal
