// Nearest neighbours and range counts in the maximum norm.
#pragma once
#include <cstdint>

namespace surprisal {

// Distance of every point to its k-th nearest other point, and the k neighbours themselves, nearest first, equal
// distances by index.
//   points      [n, d] row-major, finite
//   distances   [n]
//   neighbours  [n, k] or null
// k < n. A k-d tree up to kMostTreeDimensions, tiles of all pairs above.
void nearest_neighbours(const double* points, int64_t n, int64_t d, int64_t k, double* distances, int32_t* neighbours,
                        int threads);

// Number of other points nearer than radii[i] (strict) or at most that far, for every point i, [n]. One dimension by
// sorting, others as above.
void count_within(const double* points, int64_t n, int64_t d, const double* radii, bool strict, int32_t* counts,
                  int threads);

constexpr int64_t kMostTreeDimensions = 12;

}  // namespace surprisal
