// Maximum-norm distances of one point to a run of others, for each instruction set.
#pragma once
#include <cstdint>

namespace surprisal {

// out[i] = max_j |axes[j * stride + i] - query[j]| for i < count: coordinates stand axis by axis.
void max_distances_baseline(const double* axes, int64_t stride, int64_t d, const double* query, int64_t count,
                            double* out);
void max_distances_avx2(const double* axes, int64_t stride, int64_t d, const double* query, int64_t count, double* out);
void max_distances_avx512(const double* axes, int64_t stride, int64_t d, const double* query, int64_t count,
                          double* out);

using MaxDistances = void (*)(const double*, int64_t, int64_t, const double*, int64_t, double*);

// The widest one that this processor has. All give the same bits.
MaxDistances max_distances();

// The body of each variant.
inline void max_distances_body(const double* __restrict axes, int64_t stride, int64_t d, const double* __restrict query,
                               int64_t count, double* __restrict out) {
  const double first = query[0];
  for (int64_t i = 0; i < count; i++) out[i] = __builtin_fabs(axes[i] - first);
  for (int64_t j = 1; j < d; j++) {
    const double* __restrict axis = axes + j * stride;
    const double at = query[j];
    for (int64_t i = 0; i < count; i++) {
      const double distance = __builtin_fabs(axis[i] - at);
      out[i] = distance > out[i] ? distance : out[i];
    }
  }
}

}  // namespace surprisal
