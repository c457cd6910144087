// Node-API functions of linear_assignment.
#include <node_api.h>

#include <new>

#include "arguments.hpp"
#include "linear_assignment.hpp"

namespace surprisal {
namespace {

bool all_within(const int32_t* values, int64_t length, int64_t least, int64_t below) {
  for (int64_t i = 0; i < length; i++) {
    if (values[i] < least || values[i] >= below) return false;
  }
  return true;
}

// columnOfRow, rowOfColumn, rowDuals, columnDuals at `first` and after.
PartialAssignment assignment_argument(Arguments& arguments, size_t first) {
  int64_t n, columns, row_duals, column_duals;
  PartialAssignment state;
  state.column_of_row = arguments.integers(first, &n);
  state.row_of_column = arguments.integers(first + 1, &columns);
  state.row_duals = arguments.doubles(first + 2, &row_duals);
  state.column_duals = arguments.doubles(first + 3, &column_duals);
  state.n = n;
  if (!arguments.ok()) return state;
  if (columns != n || row_duals != n || column_duals != n) arguments.fail("arrays of an assignment differ in length");
  for (int64_t i = 0; arguments.ok() && i < n; i++) {
    const int32_t column = state.column_of_row[i];
    const int32_t row = state.row_of_column[i];
    if (column < -1 || column >= n || row < -1 || row >= n || (column >= 0 && state.row_of_column[column] != i) ||
        (row >= 0 && state.column_of_row[row] != i)) {
      arguments.fail("columns of rows and rows of columns disagree");
    }
  }
  return state;
}

// starts, columns, gains at 0 to 2.
Candidates candidates_argument(Arguments& arguments, int64_t n) {
  int64_t starts, columns, gains;
  Candidates core;
  core.starts = arguments.integers(0, &starts);
  core.columns = arguments.integers(1, &columns);
  core.gains = arguments.doubles(2, &gains);
  if (!arguments.ok()) return core;
  bool fits = starts == n + 1 && gains == columns && core.starts[0] == 0 && core.starts[n] <= columns;
  // Row reduction and auction compare two candidates of a row.
  for (int64_t i = 0; fits && i < n; i++) fits = core.starts[i + 1] >= core.starts[i] + 2;
  if (!fits || !all_within(core.columns, core.starts[n], 0, n)) arguments.fail("no lists of candidates");
  return core;
}

// The rows `free` must not be assigned.
const int32_t* free_argument(Arguments& arguments, size_t index, const PartialAssignment& state, int64_t* count) {
  const int32_t* free = arguments.integers(index, count);
  if (!arguments.ok()) return free;
  bool fits = all_within(free, *count, 0, state.n);
  for (int64_t f = 0; fits && f < *count; f++) {
    fits = state.column_of_row[free[f]] < 0 && (f == 0 || free[f] > free[f - 1]);
  }
  if (!fits) arguments.fail("a free row is assigned, or rows do not ascend");
  return free;
}

// Calls `body` with the gains [n, n] at index 0, floats or doubles.
template <class Body>
void for_gains(napi_env env, Arguments& arguments, bool single, int64_t n, Body body) {
  const auto checked = [&](const auto* gain, int64_t length) {
    if (!arguments.ok()) return;
    if (n < 0 || n > INT32_MAX || length != n * n) arguments.fail("gains are no square matrix");
    else body(gain);
  };
  int64_t length;
  try {
    if (single) {
      const float* gain = arguments.floats(0, &length);
      checked(gain, length);
    } else {
      const double* gain = arguments.doubles(0, &length);
      checked(gain, length);
    }
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, nullptr, "a kernel ran out of memory");
  }
}

// (gain, single, n, rows, columns, threads) -> place of the first gain that is not finite, or -1
napi_value AssignmentRanges(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  int64_t rows, columns;
  const bool single = arguments.integer(1) != 0;
  const int64_t n = arguments.integer(2);
  double* row_ranges = arguments.doubles(3, &rows);
  double* column_ranges = arguments.doubles(4, &columns);
  const int threads = static_cast<int>(arguments.integer(5));
  if (rows != 2 * n || columns != 2 * n) arguments.fail("ranges do not fit the gains");
  if (!arguments.ok()) return nullptr;
  int64_t wrong = -1;
  for_gains(env, arguments, single, n,
            [&](const auto* gain) { wrong = gain_ranges(gain, n, row_ranges, column_ranges, threads); });
  return arguments.ok() ? number_value(env, static_cast<double>(wrong)) : nullptr;
}

// (gain, single, n, rows, columnDuals, above, spread, k, columns, values, threads)
napi_value AssignmentRowCandidates(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 11);
  int64_t count, duals, limits, column_length, value_length;
  const bool single = arguments.integer(1) != 0;
  const int64_t n = arguments.integer(2);
  const int32_t* rows = arguments.integers(3, &count);
  const double* column_duals = arguments.doubles(4, &duals);
  const double* above = arguments.doubles(5, &limits);
  const bool spread = arguments.integer(6) != 0;
  const int64_t k = arguments.integer(7);
  int32_t* columns = arguments.integers(8, &column_length);
  double* values = arguments.doubles(9, &value_length);
  const int threads = static_cast<int>(arguments.integer(10));
  if (!arguments.ok()) return nullptr;
  if (rows == nullptr) count = n;
  else if (!all_within(rows, count, 0, n)) arguments.fail("a row that is not there");
  if (k < 1 || duals != n || (above != nullptr && limits != n) || column_length != count * k ||
      value_length != count * k) {
    arguments.fail("an array does not fit the gains");
  }
  if (!arguments.ok()) return nullptr;
  for_gains(env, arguments, single, n, [&](const auto* gain) {
    row_candidates(gain, n, rows, count, column_duals, above, spread, k, columns, values, threads);
  });
  return nullptr;
}

// (gain, single, n, rowDuals, k, rows, threads)
napi_value AssignmentColumnCandidates(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  int64_t duals, length;
  const bool single = arguments.integer(1) != 0;
  const int64_t n = arguments.integer(2);
  const double* row_duals = arguments.doubles(3, &duals);
  const int64_t k = arguments.integer(4);
  int32_t* rows = arguments.integers(5, &length);
  const int threads = static_cast<int>(arguments.integer(6));
  if (k < 1 || duals != n || length != n * k) arguments.fail("an array does not fit the gains");
  if (!arguments.ok()) return nullptr;
  for_gains(env, arguments, single, n,
            [&](const auto* gain) { column_candidates(gain, n, row_duals, k, rows, threads); });
  return nullptr;
}

// (gain, single, free, columnOfRow, rowOfColumn, rowDuals, columnDuals)
napi_value AssignmentAugmentDense(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  int64_t count;
  const bool single = arguments.integer(1) != 0;
  const PartialAssignment state = assignment_argument(arguments, 3);
  const int32_t* free = free_argument(arguments, 2, state, &count);
  if (!arguments.ok()) return nullptr;
  for_gains(env, arguments, single, state.n, [&](const auto* gain) { augment_dense(gain, free, count, state); });
  return nullptr;
}

// (starts, columns, gains, free, columnOfRow, rowOfColumn, rowDuals, columnDuals, steps) -> whether all were assigned
napi_value AssignmentAugmentCandidates(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  int64_t count;
  const PartialAssignment state = assignment_argument(arguments, 4);
  const Candidates core = candidates_argument(arguments, state.n);
  const int32_t* free = free_argument(arguments, 3, state, &count);
  const int64_t steps = arguments.integer(8);
  if (!arguments.ok()) return nullptr;
  napi_value result = nullptr;
  try {
    napi_get_boolean(env, augment_candidates(core, free, count, state, steps), &result);
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, nullptr, "a kernel ran out of memory");
  }
  return result;
}

// (starts, columns, gains, columnOfRow, rowOfColumn, rowDuals, columnDuals, epsilon, bids) -> whether the bids were enough
napi_value AssignmentAuction(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  const PartialAssignment state = assignment_argument(arguments, 3);
  const Candidates core = candidates_argument(arguments, state.n);
  const double epsilon = arguments.number(7);
  const int64_t bids = arguments.integer(8);
  if (!(epsilon > 0)) arguments.fail("an auction needs a positive epsilon");
  if (!arguments.ok()) return nullptr;
  napi_value result = nullptr;
  try {
    napi_get_boolean(env, auction_candidates(core, state, epsilon, bids), &result);
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, nullptr, "a kernel ran out of memory");
  }
  return result;
}

}  // namespace

void register_linear_assignment(napi_env env, napi_value exports) {
  set_function(env, exports, "assignmentRanges", AssignmentRanges);
  set_function(env, exports, "assignmentRowCandidates", AssignmentRowCandidates);
  set_function(env, exports, "assignmentColumnCandidates", AssignmentColumnCandidates);
  set_function(env, exports, "assignmentAugmentDense", AssignmentAugmentDense);
  set_function(env, exports, "assignmentAugmentCandidates", AssignmentAugmentCandidates);
  set_function(env, exports, "assignmentAuction", AssignmentAuction);
}

}  // namespace surprisal
