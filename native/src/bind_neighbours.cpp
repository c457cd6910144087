// Node-API wrappers of nearest neighbours and range counts.
#include <node_api.h>

#include "arguments.hpp"
#include "neighbours.hpp"

namespace surprisal {
namespace {

// (points, n, d, k, distances, neighbours | null, threads)
napi_value NearestNeighbours(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  int64_t points_length, distances_length, neighbours_length;
  const double* points = arguments.doubles(0, &points_length);
  const int64_t n = arguments.integer(1), d = arguments.integer(2), k = arguments.integer(3);
  double* distances = arguments.doubles(4, &distances_length);
  int32_t* neighbours = arguments.integers(5, &neighbours_length);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return nullptr;
  if (n < 1 || n > INT32_MAX || d < 1 || k < 1 || k >= n || points_length != n * d || distances_length != n ||
      (neighbours != nullptr && neighbours_length != n * k)) {
    arguments.fail("an array does not fit the number of points");
  }
  if (!arguments.ok()) return nullptr;
  nearest_neighbours(points, n, d, k, distances, neighbours, threads);
  return nullptr;
}

// (points, n, d, radii, strict, counts, threads)
napi_value CountWithin(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 7);
  int64_t points_length, radii_length, counts_length;
  const double* points = arguments.doubles(0, &points_length);
  const int64_t n = arguments.integer(1), d = arguments.integer(2);
  const double* radii = arguments.doubles(3, &radii_length);
  const bool strict = arguments.integer(4) != 0;
  int32_t* counts = arguments.integers(5, &counts_length);
  const int threads = static_cast<int>(arguments.integer(6));
  if (!arguments.ok()) return nullptr;
  if (n < 1 || n > INT32_MAX || d < 1 || points_length != n * d || radii_length != n || counts_length != n) {
    arguments.fail("an array does not fit the number of points");
  }
  if (!arguments.ok()) return nullptr;
  count_within(points, n, d, radii, strict, counts, threads);
  return nullptr;
}

}  // namespace

void register_neighbours(napi_env env, napi_value exports) {
  set_function(env, exports, "nearestNeighbours", NearestNeighbours);
  set_function(env, exports, "countWithin", CountWithin);
}

}  // namespace surprisal
