#include "kernel_tiles.hpp"

#include <algorithm>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Entries that a thread takes at a time: enough to be worth a wake-up.
constexpr int64_t kGrain = 32768;
// Columns of a column sum that a thread takes at a time.
constexpr int64_t kColumnGrain = 128;

int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns)); }

}  // namespace

const TileKernels& tile_kernels() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kTileKernelsAvx512;
  if (simd_level() == Simd::Avx2) return kTileKernelsAvx2;
#endif
  return kTileKernelsBaseline;
}

template <class T>
void gaussian_tile(T* tile, int64_t rows, int64_t columns, const T* row_half_norms, const T* column_half_norms,
                   T factor, double* sums, int threads) {
  const TileRowKernels<T>& kernels = tile_kernels().of(tile);
  parallel_for(rows, row_grain(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      T* row = tile + i * columns;
      kernels.gaussian(row, columns, row_half_norms[i], column_half_norms, factor);
      if (sums != nullptr) sums[i] += kernels.sum(row, columns, nullptr, 1);
    }
  });
}

template <class T>
void add_row_sums(const T* tile, int64_t rows, int64_t columns, const double* weights, double power, double* sums,
                  int threads) {
  const TileRowKernels<T>& kernels = tile_kernels().of(tile);
  parallel_for(rows, row_grain(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) sums[i] += kernels.sum(tile + i * columns, columns, weights, power);
  });
}

template <class T>
void add_column_sums(const T* tile, int64_t rows, int64_t columns, const double* weights, double* sums, int threads) {
  const TileRowKernels<T>& kernels = tile_kernels().of(tile);
  parallel_for(columns, kColumnGrain, threads, [&](int64_t begin, int64_t end) {
    kernels.column_sums(tile, rows, columns, begin, end, weights, sums);
  });
}

template <class T>
void cos_sin_features(const T* angles, int64_t features, int64_t columns, T scale, const T* column_scale, T* target,
                      int threads) {
  const TileRowKernels<T>& kernels = tile_kernels().of(angles);
  parallel_for(features, row_grain(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      kernels.cos_sin(angles + i * columns, columns, scale, column_scale, target + i * columns,
                      target + (features + i) * columns);
    }
  });
}

template <class T>
void add_tile(const T* source, int64_t rows, int64_t columns, double* target, int64_t stride, int threads) {
  const TileRowKernels<T>& kernels = tile_kernels().of(source);
  parallel_for(rows, row_grain(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) kernels.add(source + i * columns, columns, target + i * stride);
  });
}

template <class T>
void scale_rows(const T* source, int64_t rows, int64_t columns, const double* factors, T* target, int threads) {
  const TileRowKernels<T>& kernels = tile_kernels().of(source);
  parallel_for(rows, row_grain(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      kernels.scale(source + i * columns, columns, factors[i], target + i * columns);
    }
  });
}

#define SURPRISAL_TILES_OF(T)                                                                                        \
  template void gaussian_tile<T>(T*, int64_t, int64_t, const T*, const T*, T, double*, int);                         \
  template void add_row_sums<T>(const T*, int64_t, int64_t, const double*, double, double*, int);                    \
  template void add_column_sums<T>(const T*, int64_t, int64_t, const double*, double*, int);                         \
  template void cos_sin_features<T>(const T*, int64_t, int64_t, T, const T*, T*, int);                               \
  template void add_tile<T>(const T*, int64_t, int64_t, double*, int64_t, int);                                      \
  template void scale_rows<T>(const T*, int64_t, int64_t, const double*, T*, int);

SURPRISAL_TILES_OF(float)
SURPRISAL_TILES_OF(double)

}  // namespace surprisal
