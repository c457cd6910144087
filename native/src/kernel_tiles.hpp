// Entrywise work on tiles [rows, columns] of kernel matrices and on blocks of features: what lies between two matrix
// products. T is float or double; sums are in double, in an order that depends on the shape alone.
#pragma once
#include <cstdint>

namespace surprisal {

// Entry j of a sum over a row goes to partial sum j mod kSumLanes.
constexpr int kSumLanes = 8;

// Row kernels of one element type at one SIMD level.
template <class T>
struct TileRowKernels {
  // row[j] = exp(factor * min(0, row[j] - (half_norm + half_norms[j])))
  void (*gaussian)(T* row, int64_t columns, T half_norm, const T* half_norms, T factor);
  // cosines[j] = scale cos(angles[j]), sines[j] = scale sin(angles[j]), both times column_scale[j] unless that is null.
  void (*cos_sin)(const T* angles, int64_t columns, T scale, const T* column_scale, T* cosines, T* sines);
  // sum of weights[j] row[j]^power; null weights are ones
  double (*sum)(const T* row, int64_t columns, const double* weights, double power);
  // sums[j] += weights[i] tile[i, j] for first <= j < last
  void (*column_sums)(const T* tile, int64_t rows, int64_t columns, int64_t first, int64_t last, const double* weights,
                      double* sums);
  void (*add)(const T* source, int64_t count, double* target);
  void (*scale)(const T* source, int64_t count, double factor, T* target);
};

struct TileKernels {
  TileRowKernels<float> f32;
  TileRowKernels<double> f64;
  const TileRowKernels<float>& of(const float*) const { return f32; }
  const TileRowKernels<double>& of(const double*) const { return f64; }
};

extern const TileKernels kTileKernelsBaseline;
#if defined(__x86_64__)
extern const TileKernels kTileKernelsAvx2;
extern const TileKernels kTileKernelsAvx512;
#endif

const TileKernels& tile_kernels();  // those of this processor

// tile[i, j] of inner products becomes exp(-factor |x_i - y_j|^2 / 2), from half the squared norms of x_i and y_j.
// With sums, sums[i] grows by the sum of row i.
template <class T>
void gaussian_tile(T* tile, int64_t rows, int64_t columns, const T* row_half_norms, const T* column_half_norms,
                   T factor, double* sums, int threads);

// sums[i] += sum_j weights[j] tile[i, j]^power
template <class T>
void add_row_sums(const T* tile, int64_t rows, int64_t columns, const double* weights, double power, double* sums,
                  int threads);

// sums[j] += sum_i weights[i] tile[i, j]
template <class T>
void add_column_sums(const T* tile, int64_t rows, int64_t columns, const double* weights, double* sums, int threads);

// target [2 features, columns] = scale cos(angles) over scale sin(angles), angles [features, columns]
template <class T>
void cos_sin_features(const T* angles, int64_t features, int64_t columns, T scale, const T* column_scale, T* target,
                      int threads);

// target[i stride + j] += source[i, j]
template <class T>
void add_tile(const T* source, int64_t rows, int64_t columns, double* target, int64_t stride, int threads);

// target[i, j] = factors[i] source[i, j]; target may be source
template <class T>
void scale_rows(const T* source, int64_t rows, int64_t columns, const double* factors, T* target, int threads);

}  // namespace surprisal
