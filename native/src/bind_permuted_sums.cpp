// Node-API wrappers of permuted sums. Arguments were checked by src/kernels/permuted-sums.ts; what is checked again is
// what would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "permuted_sums.hpp"

namespace surprisal {
namespace {

bool is_single(napi_env env, napi_callback_info info, size_t index) {
  napi_value values[kMostArguments];
  size_t count = kMostArguments;
  napi_typedarray_type type = napi_float64_array;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count <= index) return false;
  if (napi_get_typedarray_info(env, values[index], &type, nullptr, nullptr, nullptr, nullptr) != napi_ok) return false;
  return type == napi_float32_array;
}

template <class T>
T* reals(Arguments& arguments, size_t index, int64_t* length) {
  return arguments.array<T>(index, sizeof(T) == 4 ? napi_float32_array : napi_float64_array, length);
}

void check_order(Arguments& arguments, const int32_t* order, int64_t length, int64_t size) {
  if (order == nullptr) return;
  if (length != size) arguments.fail("an order does not fit its matrix");
  for (int64_t i = 0; arguments.ok() && i < length; i++) {
    if (order[i] < 0 || order[i] >= size) arguments.fail("an index is outside a matrix");
  }
}

// Arguments `first` to `first` + 3: rows, columns, order of rows | null, order of columns | null.
PermutedMatrix permuted_matrix(Arguments& arguments, size_t first) {
  PermutedMatrix matrix;
  int64_t rows, columns;
  matrix.rows = arguments.integer(first);
  matrix.columns = arguments.integer(first + 1);
  matrix.row_order = arguments.integers(first + 2, &rows);
  matrix.column_order = arguments.integers(first + 3, &columns);
  if (matrix.rows < 0 || matrix.columns < 0) arguments.fail("a matrix has no size");
  check_order(arguments, matrix.row_order, rows, matrix.rows);
  check_order(arguments, matrix.column_order, columns, matrix.columns);
  return matrix;
}

template <class T>
void add_weighted_matrix(Arguments& arguments) {
  int64_t sums, entries;
  double* sum = arguments.doubles(0, &sums);
  const T* x = reals<T>(arguments, 1, &entries);
  const PermutedMatrix matrix = permuted_matrix(arguments, 2);
  const double weight = arguments.number(6);
  const bool overwrite = arguments.integer(7) != 0;
  const int threads = static_cast<int>(arguments.integer(8));
  if (!arguments.ok()) return;
  if (sums != matrix.rows * matrix.columns || entries != sums) arguments.fail("an array does not fit its matrix");
  if (arguments.ok()) add_weighted(sum, x, matrix, weight, overwrite, threads);
}

// (sum, x, rows, columns, rowOrder | null, columnOrder | null, weight, overwrite, threads)
napi_value AddWeighted(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info, 1)) add_weighted_matrix<float>(arguments);
  else add_weighted_matrix<double>(arguments);
  return nullptr;
}

template <class T>
void divide_into(Arguments& arguments) {
  int64_t count, targets;
  const double* sum = arguments.doubles(0, &count);
  const double divisor = arguments.number(1);
  T* target = reals<T>(arguments, 2, &targets);
  const int threads = static_cast<int>(arguments.integer(3));
  if (!arguments.ok()) return;
  if (count != targets) arguments.fail("two arrays differ in length");
  if (arguments.ok()) divide_sum(sum, count, divisor, target, threads);
}

// (sum, divisor, target, threads)
napi_value DivideSum(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info, 2)) divide_into<float>(arguments);
  else divide_into<double>(arguments);
  return nullptr;
}

template <class T>
void distances_of_rows(Arguments& arguments) {
  int64_t left, right, rows;
  const T* a = reals<T>(arguments, 0, &left);
  const T* b = reals<T>(arguments, 1, &right);
  const PermutedMatrix matrix = permuted_matrix(arguments, 2);
  double* distances = arguments.doubles(6, &rows);
  const int threads = static_cast<int>(arguments.integer(7));
  if (!arguments.ok()) return;
  if (left != matrix.rows * matrix.columns || right != left || rows != matrix.rows) {
    arguments.fail("an array does not fit its matrix");
  }
  if (arguments.ok()) squared_row_distances(a, b, matrix, distances, threads);
}

// (a, b, rows, columns, rowOrder | null, columnOrder | null, distances, threads)
napi_value SquaredRowDistances(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info, 0)) distances_of_rows<float>(arguments);
  else distances_of_rows<double>(arguments);
  return nullptr;
}

}  // namespace

void register_permuted_sums(napi_env env, napi_value exports) {
  set_function(env, exports, "addWeighted", AddWeighted);
  set_function(env, exports, "divideSum", DivideSum);
  set_function(env, exports, "squaredRowDistances", SquaredRowDistances);
}

}  // namespace surprisal
