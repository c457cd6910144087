// The functions of kernel_tiles.hpp, each for f32 and f64.
#include "arguments.hpp"
#include "kernel_tiles.hpp"

namespace surprisal {
namespace {

template <class T>
constexpr napi_typedarray_type kArray = sizeof(T) == 4 ? napi_float32_array : napi_float64_array;

// A tile [rows, columns] at arguments `index` .. `index + 2`.
template <class T>
struct Tile {
  T* data;
  int64_t rows, columns;
  Tile(Arguments& arguments, size_t index) {
    int64_t length;
    data = arguments.array<T>(index, kArray<T>, &length);
    rows = arguments.integer(index + 1);
    columns = arguments.integer(index + 2);
    if (rows < 0 || columns < 0 || rows * columns > length) arguments.fail("the tile is longer than its array");
  }
};

// An optional array of at least `least` entries.
template <class T>
T* optional(Arguments& arguments, size_t index, int64_t least) {
  int64_t length;
  T* data = arguments.array<T>(index, kArray<T>, &length);
  if (data != nullptr && length < least) arguments.fail("an array does not fit the tile");
  return data;
}

template <class T>
T* required(Arguments& arguments, size_t index, int64_t least) {
  T* data = optional<T>(arguments, index, least);
  if (data == nullptr && least > 0) arguments.fail("an array is missing");
  return data;
}

// (tile, rows, columns, rowHalfNorms, columnHalfNorms, factor, sums or null, threads)
template <class T>
napi_value GaussianTile(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 8);
  const Tile<T> tile(arguments, 0);
  const T* row_norms = required<T>(arguments, 3, tile.rows);
  const T* column_norms = required<T>(arguments, 4, tile.columns);
  const T factor = static_cast<T>(arguments.number(5));
  double* sums = optional<double>(arguments, 6, tile.rows);
  const int threads = static_cast<int>(arguments.integer(7));
  if (!arguments.ok()) return nullptr;
  gaussian_tile(tile.data, tile.rows, tile.columns, row_norms, column_norms, factor, sums, threads);
  return nullptr;
}

// (tile, rows, columns, weights or null, power, sums, threads)
template <class T>
napi_value AddRowSums(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  const Tile<T> tile(arguments, 0);
  const double* weights = optional<double>(arguments, 3, tile.columns);
  const double power = arguments.number(4);
  double* sums = required<double>(arguments, 5, tile.rows);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return nullptr;
  add_row_sums(tile.data, tile.rows, tile.columns, weights, power, sums, threads);
  return nullptr;
}

// (tile, rows, columns, weights or null, sums, threads)
template <class T>
napi_value AddColumnSums(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  const Tile<T> tile(arguments, 0);
  const double* weights = optional<double>(arguments, 3, tile.rows);
  double* sums = required<double>(arguments, 4, tile.columns);
  const int threads = static_cast<int>(arguments.integer(5));
  if (!arguments.ok()) return nullptr;
  add_column_sums(tile.data, tile.rows, tile.columns, weights, sums, threads);
  return nullptr;
}

// (angles, features, columns, scale, columnScale or null, target, threads)
template <class T>
napi_value CosSinFeatures(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  const Tile<T> angles(arguments, 0);
  const T scale = static_cast<T>(arguments.number(3));
  const T* column_scale = optional<T>(arguments, 4, angles.columns);
  T* target = required<T>(arguments, 5, 2 * angles.rows * angles.columns);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return nullptr;
  cos_sin_features(angles.data, angles.rows, angles.columns, scale, column_scale, target, threads);
  return nullptr;
}

// (source, rows, columns, target, offset, stride, threads)
template <class T>
napi_value AddTile(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  const Tile<T> source(arguments, 0);
  const int64_t offset = arguments.integer(4);
  const int64_t stride = arguments.integer(5);
  const int64_t least = source.rows > 0 ? offset + (source.rows - 1) * stride + source.columns : 0;
  if (offset < 0 || stride < source.columns) arguments.fail("the tile does not fit its target");
  double* target = required<double>(arguments, 3, least);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return nullptr;
  add_tile(source.data, source.rows, source.columns, target + offset, stride, threads);
  return nullptr;
}

// (source, rows, columns, factors, target, threads)
template <class T>
napi_value ScaleRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 6);
  const Tile<T> source(arguments, 0);
  const double* factors = required<double>(arguments, 3, source.rows);
  T* target = required<T>(arguments, 4, source.rows * source.columns);
  const int threads = static_cast<int>(arguments.integer(5));
  if (!arguments.ok()) return nullptr;
  scale_rows(source.data, source.rows, source.columns, factors, target, threads);
  return nullptr;
}

}  // namespace

void register_kernel_tiles(napi_env env, napi_value exports) {
  set_function(env, exports, "gaussianTileF32", GaussianTile<float>);
  set_function(env, exports, "gaussianTileF64", GaussianTile<double>);
  set_function(env, exports, "addRowSumsF32", AddRowSums<float>);
  set_function(env, exports, "addRowSumsF64", AddRowSums<double>);
  set_function(env, exports, "addColumnSumsF32", AddColumnSums<float>);
  set_function(env, exports, "addColumnSumsF64", AddColumnSums<double>);
  set_function(env, exports, "cosSinFeaturesF32", CosSinFeatures<float>);
  set_function(env, exports, "cosSinFeaturesF64", CosSinFeatures<double>);
  set_function(env, exports, "addTileF32", AddTile<float>);
  set_function(env, exports, "addTileF64", AddTile<double>);
  set_function(env, exports, "scaleRowsF32", ScaleRows<float>);
  set_function(env, exports, "scaleRowsF64", ScaleRows<double>);
}

}  // namespace surprisal
