#if defined(__x86_64__)
#include "neighbour_distances.hpp"

namespace surprisal {

void max_distances_avx512(const double* axes, int64_t stride, int64_t d, const double* query, int64_t count,
                        double* out) {
  max_distances_body(axes, stride, d, query, count, out);
}

}  // namespace surprisal
#endif
