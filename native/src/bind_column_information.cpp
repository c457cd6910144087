// Node-API functions of column_information.
#include <node_api.h>

#include "arguments.hpp"
#include "column_information.hpp"

namespace surprisal {
namespace {

bool all_within(const int32_t* values, int64_t length, int64_t below) {
  for (int64_t i = 0; i < length; i++) {
    if (values[i] < 0 || values[i] >= below) return false;
  }
  return true;
}

// The arguments of a test from `first` on: orders, replicates, stopAfter, exceedances, drawn, sums.
ColumnTest test_arguments(Arguments& arguments, size_t first, int64_t count, int64_t n) {
  ColumnTest test{};
  int64_t orders, exceedances, drawn, sums;
  test.orders = arguments.integers(first, &orders);
  test.replicates = arguments.integer(first + 1);
  test.stop_after = static_cast<int32_t>(arguments.integer(first + 2));
  test.exceedances = arguments.integers(first + 3, &exceedances);
  test.drawn = arguments.integers(first + 4, &drawn);
  test.sums = arguments.doubles(first + 5, &sums);
  if (test.orders == nullptr) return test;
  if (test.replicates < 0 || orders < test.replicates * n || exceedances < count || drawn < count ||
      sums < 2 * count) {
    arguments.fail("an array does not fit the test");
  } else if (!all_within(test.orders, test.replicates * n, n)) {
    arguments.fail("an order names an observation that is not there");
  }
  return test;
}

// (columns, count, n, codes, levels, threads)
napi_value RegularBins(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  int64_t columns, codes, levels;
  const double* x = arguments.doubles(0, &columns);
  const int64_t count = arguments.integer(1);
  const int64_t n = arguments.integer(2);
  int32_t* out = arguments.integers(3, &codes);
  int32_t* out_levels = arguments.integers(4, &levels);
  const int threads = static_cast<int>(arguments.integer(5));
  if (count < 0 || n < 1 || columns < count * n || codes < count * n || levels < count) {
    arguments.fail("an array does not fit the columns");
  }
  if (!arguments.ok()) return nullptr;
  regular_bins(x, count, n, out, out_levels, threads);
  return nullptr;
}

// (columns, levels, count, n, outcome, outcomeLevels, orders, replicates, stopAfter, exceedances, drawn, sums, nats, threads)
napi_value CodesInformation(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 14);
  int64_t columns, levels, outcome_length, results;
  const int32_t* codes = arguments.integers(0, &columns);
  const int32_t* code_levels = arguments.integers(1, &levels);
  const int64_t count = arguments.integer(2);
  const int64_t n = arguments.integer(3);
  const int32_t* outcome = arguments.integers(4, &outcome_length);
  const int32_t outcome_levels = static_cast<int32_t>(arguments.integer(5));
  const ColumnTest test = test_arguments(arguments, 6, count, n);
  double* nats = arguments.doubles(12, &results);
  const int threads = static_cast<int>(arguments.integer(13));
  if (count < 0 || n < 1 || columns < count * n || levels < count || outcome_length < n || results < count) {
    arguments.fail("an array does not fit the columns");
  }
  if (!arguments.ok()) return nullptr;
  bool fits = all_within(outcome, n, outcome_levels);
  for (int64_t j = 0; fits && j < count; j++) fits = all_within(codes + j * n, n, code_levels[j]);
  if (!fits) {
    arguments.fail("a code is not below its number of levels");
    return nullptr;
  }
  codes_information(codes, code_levels, count, n, outcome, outcome_levels, test, nats, threads);
  return nullptr;
}

// (columns, count, n, outcome, points, unitBandwidth, orders, replicates, stopAfter, exceedances, drawn, sums, nats, threads)
napi_value KernelInformation(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 14);
  int64_t columns, outcome_length, results;
  const double* x = arguments.doubles(0, &columns);
  const int64_t count = arguments.integer(1);
  const int64_t n = arguments.integer(2);
  const double* outcome = arguments.doubles(3, &outcome_length);
  const int64_t points = arguments.integer(4);
  const bool unit = arguments.integer(5) != 0;
  const ColumnTest test = test_arguments(arguments, 6, count, n);
  double* nats = arguments.doubles(12, &results);
  const int threads = static_cast<int>(arguments.integer(13));
  if (count < 0 || n < 2 || columns < count * n || outcome_length < n || results < count || points < 8 ||
      points > 8192) {
    arguments.fail("an array does not fit the columns, or the grid has too few or too many points");
  }
  if (!arguments.ok()) return nullptr;
  kernel_information(x, count, n, outcome, points, unit, test, nats, threads);
  return nullptr;
}

// (values, codes, levels, count, n, columnsAreCodes, points, orders, replicates, stopAfter, exceedances, drawn, sums, nats,
//  threads)
napi_value ClassInformation(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 15);
  int64_t value_length, code_length, level_length, results;
  const double* values = arguments.doubles(0, &value_length);
  const int32_t* codes = arguments.integers(1, &code_length);
  const int32_t* levels = arguments.integers(2, &level_length);
  const int64_t count = arguments.integer(3);
  const int64_t n = arguments.integer(4);
  const bool columns_are_codes = arguments.integer(5) != 0;
  const int64_t points = arguments.integer(6);
  const ColumnTest test = test_arguments(arguments, 7, count, n);
  double* nats = arguments.doubles(13, &results);
  const int threads = static_cast<int>(arguments.integer(14));
  const int64_t value_columns = columns_are_codes ? 1 : count;
  const int64_t code_columns = columns_are_codes ? count : 1;
  if (count < 0 || n < 2 || value_length < value_columns * n || code_length < code_columns * n ||
      level_length < count || results < count || points < 8 || points > (1 << 20)) {
    arguments.fail("an array does not fit the columns, or the grid has too few or too many points");
  }
  if (!arguments.ok()) return nullptr;
  bool fits = true;
  for (int64_t j = 0; fits && j < count; j++) fits = all_within(codes + (columns_are_codes ? j * n : 0), n, levels[j]);
  if (!fits) {
    arguments.fail("a code is not below its number of levels");
    return nullptr;
  }
  class_information(values, codes, levels, count, n, columns_are_codes, points, test, nats, threads);
  return nullptr;
}

}  // namespace

void register_column_information(napi_env env, napi_value exports) {
  set_function(env, exports, "regularBins", RegularBins);
  set_function(env, exports, "codesInformation", CodesInformation);
  set_function(env, exports, "kernelInformation", KernelInformation);
  set_function(env, exports, "classInformation", ClassInformation);
}

}  // namespace surprisal
