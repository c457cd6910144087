#include "neighbour_distances.hpp"

#include "processor.hpp"

namespace surprisal {

void max_distances_baseline(const double* axes, int64_t stride, int64_t d, const double* query, int64_t count,
                            double* out) {
  max_distances_body(axes, stride, d, query, count, out);
}

MaxDistances max_distances() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return max_distances_avx512;
  if (simd_level() == Simd::Avx2) return max_distances_avx2;
#endif
  return max_distances_baseline;
}

}  // namespace surprisal
