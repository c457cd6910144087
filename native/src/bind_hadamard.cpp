// Node-API wrappers of rotations and of moments of rows. Arguments were checked by src/kernels/hadamard.ts and
// row-moments.ts; what is checked again is what would read or write outside a typed array.
#include <node_api.h>

#include <new>

#include "arguments.hpp"
#include "hadamard.hpp"

namespace surprisal {
namespace {

bool is_single(napi_env env, napi_callback_info info) {
  napi_value values[kMostArguments];
  size_t count = kMostArguments;
  napi_typedarray_type type = napi_float64_array;
  if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count == 0) return false;
  if (napi_get_typedarray_info(env, values[0], &type, nullptr, nullptr, nullptr, nullptr) != napi_ok) return false;
  return type == napi_float32_array;
}

template <class T>
T* reals(Arguments& arguments, size_t index, int64_t* length) {
  return arguments.array<T>(index, sizeof(T) == 4 ? napi_float32_array : napi_float64_array, length);
}

template <class T>
void rotate(napi_env env, Arguments& arguments) {
  int64_t entries, codes, factors, order;
  T* x = reals<T>(arguments, 0, &entries);
  const int64_t rows = arguments.integer(1);
  Rotation<T> rotation;
  rotation.n = arguments.integer(2);
  rotation.core = arguments.integer(3);
  rotation.segment = arguments.integer(4);
  rotation.codes = arguments.bytes(5, &codes);
  rotation.diagonal = reals<T>(arguments, 6, &factors);
  rotation.permutation = arguments.integers(7, &order);
  rotation.inverse = arguments.integer(8) != 0;
  const int threads = static_cast<int>(arguments.integer(9));
  if (!arguments.ok()) return;
  const int64_t n = rotation.n, core = rotation.core, segment = rotation.segment;
  if (n < 1 || core < 1 || segment < 1 || (segment & (segment - 1)) != 0 || n % (core * segment) != 0 ||
      (rotation.codes != nullptr && (n != core * segment || core % 4 != 0 || codes != core * (core / 4)))) {
    arguments.fail("a rotation does not fit its width");
  } else if (rows < 0 || entries != rows * n || factors != n || (rotation.permutation != nullptr && order != n)) {
    arguments.fail("an array does not fit the rotation");
  }
  for (int64_t i = 0; arguments.ok() && i < codes; i++) {
    if (rotation.codes[i] > 15) arguments.fail("a code has more than four signs");
  }
  for (int64_t i = 0; arguments.ok() && i < order; i++) {
    if (rotation.permutation[i] < 0 || rotation.permutation[i] >= n) arguments.fail("an index is outside a row");
  }
  if (!arguments.ok()) return;
  try {
    rotate_rows(x, rows, rotation, threads);
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, nullptr, "a kernel ran out of memory");
  }
}

// (data, rows, n, core, segment, codes | null, diagonal, permutation | null, inverse, threads)
napi_value RotateRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 10);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) rotate<float>(env, arguments);
  else rotate<double>(env, arguments);
  return nullptr;
}

// (matrix, n, transpose, threads)
napi_value FoldSquare(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 4);
  int64_t entries;
  double* matrix = arguments.doubles(0, &entries);
  const int64_t n = arguments.integer(1);
  const bool transpose = arguments.integer(2) != 0;
  const int threads = static_cast<int>(arguments.integer(3));
  if (n < 0 || entries != n * n) arguments.fail("a matrix does not fit its array");
  if (!arguments.ok()) return nullptr;
  if (transpose) transpose_square(matrix, n, threads);
  else mirror_lower(matrix, n, threads);
  return nullptr;
}

template <class T>
void moments_of_rows(Arguments& arguments) {
  int64_t entries, moments_length, energies_length;
  const T* x = reals<T>(arguments, 0, &entries);
  const int64_t rows = arguments.integer(1), columns = arguments.integer(2), group = arguments.integer(3);
  double* moments = arguments.doubles(4, &moments_length);
  double* energies = arguments.doubles(5, &energies_length);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return;
  if (rows < 0 || columns < 0 || group < 1 || entries != rows * columns || moments_length != rows * 6 ||
      energies_length != rows * ((columns + group - 1) / group)) {
    arguments.fail("an array does not fit the rows");
  }
  if (arguments.ok()) row_moments(x, rows, columns, group, moments, energies, threads);
}

// (data, rows, columns, groupLength, moments, energies, threads)
napi_value RowMoments(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  if (!arguments.ok()) return nullptr;
  if (is_single(env, info)) moments_of_rows<float>(arguments);
  else moments_of_rows<double>(arguments);
  return nullptr;
}

}  // namespace

void register_hadamard(napi_env env, napi_value exports) {
  set_function(env, exports, "rotateRows", RotateRows);
  set_function(env, exports, "foldSquare", FoldSquare);
  set_function(env, exports, "rowMoments", RowMoments);
}

}  // namespace surprisal
