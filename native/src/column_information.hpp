// Mutual information of many columns with one outcome. The same methods in TypeScript: src/kernels/column-information*.
#pragma once
#include <cstdint>

namespace surprisal {

// A permutation test of every column: replicate b pairs observation i of the column with observation
// orders[b * n + i] of the outcome. With `stop_after` > 0 a column whose replicates reached its figure that many
// times is left alone. `exceedances` and `drawn` [count] and `sums` [count, 2] (of the replicates and of their squares) go
// on from what they hold. Without orders nothing is tested.
struct ColumnTest {
  const int32_t* orders;
  int64_t replicates;
  int32_t stop_after;
  int32_t* exceedances;
  int32_t* drawn;
  double* sums;
};

// Bins of equal width by Birge & Rozenholc (2006), D = 2..99, of columns [count, n]: codes [count, n], levels [count].
void regular_bins(const double* columns, int64_t count, int64_t n, int32_t* codes, int32_t* levels, int threads);

// Plug-in information, nats [count], of coded columns [count, n] with a coded outcome [n]. With a test `nats` is read.
void codes_information(const int32_t* columns, const int32_t* levels, int64_t count, int64_t n, const int32_t* outcome,
                       int32_t outcome_levels, const ColumnTest& test, double* nats, int threads);

// Information of columns [count, n] with an outcome [n] through the joint density on a grid of points x points.
// `unit_bandwidth`: the kernel has width 1 on the variable divided by its IQR; else Silverman's for each variable.
void kernel_information(const double* columns, int64_t count, int64_t n, const double* outcome, int64_t points,
                        bool unit_bandwidth, const ColumnTest& test, double* nats, int threads);

// Information of a class and a continuous variable through the densities of the classes on a common grid.
// `values` [count, n] with codes [n], or, when `columns_are_codes`, codes [count, n] with values [n]; levels [count].
void class_information(const double* values, const int32_t* codes, const int32_t* levels, int64_t count, int64_t n,
                       bool columns_are_codes, int64_t points, const ColumnTest& test, double* nats, int threads);

// The two loops that cost most, one set for each instruction set.
constexpr int64_t kLanes = 8;

// The radial kernel on rows and columns [-rows, rows], [-columns, columns]: values[(r + rows) * stride + c + columns +
// kLanes], zeros around. It is read in blocks of kLanes columns, block k from column kLanes k - columns on, of which the
// rows [-reach[k], reach[k]] are not all 0; reach -1: none.
struct StampKernel {
  int64_t rows;
  int64_t columns;
  int64_t stride;
  int64_t blocks;
  const double* values;
  const int32_t* reach;
};

// Masses of four neighbouring grid points, the first at (row, column).
struct Stamp {
  int32_t row;
  int32_t column;
  double mass[4];
};

struct DensityLoops {
  // Adds the kernel around every stamp to `density`, rows of `stride` entries with kLanes of padding before each row and
  // at least 2 kLanes behind, and a row of padding above and below.
  void (*stamp)(const Stamp* stamps, int64_t count, const StampKernel& kernel, double* density, int64_t stride);
  // sum v, sum v log v - sum over rows of (sum v) log (sum v) of a block [rows, columns]; adds columns to `marginal`.
  void (*fold)(const double* density, int64_t rows, int64_t columns, int64_t stride, double* marginal, double* total,
               double* sum);
};

extern const DensityLoops kDensityLoopsBaseline;
#if defined(__x86_64__)
extern const DensityLoops kDensityLoopsAvx2;
extern const DensityLoops kDensityLoopsAvx512;
#endif

}  // namespace surprisal
