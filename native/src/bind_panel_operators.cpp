// Node-API wrappers of operators on panels.
#include <node_api.h>

#include "arguments.hpp"
#include "panel_operators.hpp"

namespace surprisal {
namespace {

// Whether argument `index` is a Float32Array; a mismatch with the other arrays is found when they are read.
bool is_single(napi_env env, napi_callback_info info, size_t index) {
  size_t count = kMostArguments;
  napi_value values[kMostArguments];
  napi_typedarray_type type = napi_float64_array;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || index >= count) return false;
  return napi_get_typedarray_info(env, values[index], &type, nullptr, nullptr, nullptr, nullptr) == napi_ok &&
         type == napi_float32_array;
}

template <class T>
constexpr napi_typedarray_type kArray = sizeof(T) == 4 ? napi_float32_array : napi_float64_array;

// Reads the arguments of one call and checks that panels are [days, stocks].
class Panels {
 public:
  Panels(Arguments& arguments, size_t days, size_t stocks)
      : arguments_(arguments), days(arguments.integer(days)), stocks(arguments.integer(stocks)) {
    if (this->days < 0 || this->stocks < 0) arguments_.fail("a panel cannot have a negative size");
  }

  template <class T>
  T* panel(size_t index, bool optional = false) {
    int64_t length;
    T* values = arguments_.array<T>(index, kArray<T>, &length);
    if (arguments_.ok() && !(optional && values == nullptr && length == 0) && length != days * stocks) {
      arguments_.fail("an array does not fit the panel");
    }
    return values;
  }

  double* per_day(size_t index, int64_t width) {
    int64_t length;
    double* values = arguments_.doubles(index, &length);
    if (arguments_.ok() && length != days * width) arguments_.fail("an array does not fit the days");
    return values;
  }

 private:
  Arguments& arguments_;

 public:
  const int64_t days, stocks;
};

template <class T>
void rolling(Arguments& arguments) {
  Panels panels(arguments, 4, 5);
  const int64_t code = arguments.integer(0), window = arguments.integer(6);
  if (code < 0 || code >= kRollingOperators || window < 1) arguments.fail("unknown operator or window");
  const bool pair = code >= static_cast<int64_t>(Rolling::Cov);
  const RollingPanel<T> panel = {panels.panel<T>(1), panels.panel<T>(2, !pair), panels.panel<T>(3),
                                 panels.days,        panels.stocks,             window};
  const int threads = static_cast<int>(arguments.integer(7));
  if (arguments.ok()) panel_rolling(static_cast<Rolling>(code), panel, threads);
}

// (code, x, y | null, out, days, stocks, window, threads)
napi_value PanelRolling(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  if (is_single(env, info, 3)) rolling<float>(arguments);
  else rolling<double>(arguments);
  return nullptr;
}

template <class T>
void elementwise(Arguments& arguments) {
  int64_t x_length, y_length, length;
  const int64_t code = arguments.integer(0);
  const PanelOperand<T> x = {arguments.array<T>(1, kArray<T>, &x_length), arguments.number(2)};
  const PanelOperand<T> y = {arguments.array<T>(3, kArray<T>, &y_length), arguments.number(4)};
  T* out = arguments.array<T>(5, kArray<T>, &length);
  const int threads = static_cast<int>(arguments.integer(6));
  if (code < 0 || code >= kElementwiseOperators) arguments.fail("unknown operator");
  if ((x.values != nullptr && x_length != length) || (y.values != nullptr && y_length != length)) {
    arguments.fail("operands differ in length");
  }
  if (arguments.ok()) panel_elementwise(static_cast<Elementwise>(code), x, y, out, length, threads);
}

// (code, x | null, constant, y | null, constant, out, threads)
napi_value PanelElementwise(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  if (is_single(env, info, 5)) elementwise<float>(arguments);
  else elementwise<double>(arguments);
  return nullptr;
}

template <class T>
void normalise(Arguments& arguments) {
  Panels panels(arguments, 3, 4);
  const T* x = panels.panel<T>(0);
  T* z = panels.panel<T>(1);
  double* deviations = panels.per_day(2, 1);
  const int threads = static_cast<int>(arguments.integer(5));
  if (arguments.ok()) panel_normalise(x, z, deviations, panels.days, panels.stocks, threads);
}

// (x, z, deviations, days, stocks, threads)
napi_value PanelNormalise(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  if (is_single(env, info, 0)) normalise<float>(arguments);
  else normalise<double>(arguments);
  return nullptr;
}

template <class T>
void day_products(Arguments& arguments) {
  Panels panels(arguments, 3, 4);
  const T* a = panels.panel<T>(0);
  const T* b = panels.panel<T>(1);
  double* out = panels.per_day(2, 1);
  const int threads = static_cast<int>(arguments.integer(5));
  if (arguments.ok()) panel_day_products(a, b, out, panels.days, panels.stocks, threads);
}

// (a, b, out, days, stocks, threads)
napi_value PanelDayProducts(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  if (is_single(env, info, 0)) day_products<float>(arguments);
  else day_products<double>(arguments);
  return nullptr;
}

template <class T>
void day_moments(Arguments& arguments) {
  Panels panels(arguments, 3, 4);
  const T* x = panels.panel<T>(0);
  const T* y = panels.panel<T>(1);
  double* out = panels.per_day(2, 4);
  const int threads = static_cast<int>(arguments.integer(5));
  if (arguments.ok()) panel_day_moments(x, y, out, panels.days, panels.stocks, threads);
}

// (x, y, out, days, stocks, threads)
napi_value PanelDayMoments(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  if (is_single(env, info, 0)) day_moments<float>(arguments);
  else day_moments<double>(arguments);
  return nullptr;
}

template <class T>
void day_ranks(Arguments& arguments) {
  Panels panels(arguments, 4, 5);
  const T* x = panels.panel<T>(0);
  const T* beside = panels.panel<T>(1, true);
  const bool average = arguments.integer(2) != 0;
  T* out = panels.panel<T>(3);
  const int threads = static_cast<int>(arguments.integer(6));
  if (arguments.ok()) panel_day_ranks(x, beside, average, out, panels.days, panels.stocks, threads);
}

// (x, beside | null, average, out, days, stocks, threads)
napi_value PanelDayRanks(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  if (is_single(env, info, 0)) day_ranks<float>(arguments);
  else day_ranks<double>(arguments);
  return nullptr;
}

}  // namespace

void register_panel_operators(napi_env env, napi_value exports) {
  set_function(env, exports, "panelRolling", PanelRolling);
  set_function(env, exports, "panelElementwise", PanelElementwise);
  set_function(env, exports, "panelNormalise", PanelNormalise);
  set_function(env, exports, "panelDayProducts", PanelDayProducts);
  set_function(env, exports, "panelDayMoments", PanelDayMoments);
  set_function(env, exports, "panelDayRanks", PanelDayRanks);
}

}  // namespace surprisal
