// Randomised Hadamard rotations of rows, square matrices turned in place, and moments of rows. Every result is the same
// bits whatever the number of threads and the instruction set: sums have one order, which the TypeScript reference has
// too.
#pragma once
#include <cstdint>

namespace surprisal {

// Q of one width n: blocks of core x segment, of which there is one when there is a core.
template <class T>
struct Rotation {
  int64_t n;
  int64_t core;                // c, 1 for none
  int64_t segment;             // 2^p
  const uint8_t* codes;        // [c, c / 4] signs of four inputs each, or null
  const T* diagonal;           // [n] signs over the root of c 2^p
  const int32_t* permutation;  // [n] or null
  bool inverse;
};

// x [rows, n] <- rows Q^T (each row x becomes Qx), or rows Q for the inverse.
template <class T>
void rotate_rows(T* x, int64_t rows, const Rotation<T>& rotation, int threads);

// Writes the lower triangle of a matrix [n, n] over the upper one, or turns the matrix.
void mirror_lower(double* matrix, int64_t n, int threads);
void transpose_square(double* matrix, int64_t n, int threads);

// moments [rows, 6]: finite entries, largest magnitude, sums of first to fourth powers; energies [rows, groups].
template <class T>
void row_moments(const T* x, int64_t rows, int64_t columns, int64_t group, double* moments, double* energies,
                 int threads);

// Columns of a tile that a core is multiplied to: two cache lines.
template <class T>
constexpr int64_t kCoreColumns = 128 / static_cast<int64_t>(sizeof(T));

// Groups of four inputs whose sixteen signed sums are held at a time.
constexpr int64_t kCoreGroups = 8;

template <class T>
struct HadamardKernels {
  // Butterflies of strides 1 to segment / 2 on every run of `segment` of `count` entries.
  void (*butterflies)(T* x, int64_t count, int64_t segment);
  // out [core, kCoreColumns] = H in; `tables` holds kCoreGroups * 16 * kCoreColumns.
  void (*core)(const T* in, T* out, int64_t core, const uint8_t* codes, T* tables);
  void (*multiply)(T* x, const T* factors, int64_t count);
  void (*moments)(const T* row, int64_t columns, int64_t group, double* moments, double* energies);
};

struct HadamardKernelSet {
  HadamardKernels<double> f64;
  HadamardKernels<float> f32;
};

extern const HadamardKernelSet kHadamardKernelsBaseline;
#if defined(__x86_64__)
extern const HadamardKernelSet kHadamardKernelsAvx2;
extern const HadamardKernelSet kHadamardKernelsAvx512;
#endif

}  // namespace surprisal
