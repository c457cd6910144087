// Dense products, row-major: packed operands, tiles held in registers. Every entry of a result is summed in one fixed
// order, whatever the number of threads and wherever the tile lies.
#pragma once
#include <cstdint>

namespace surprisal {

// Depth of a panel: sums run in the precision of the operands over a panel, and panels are added to the result.
constexpr int64_t kPanelDepth = 256;

// op(X): entry (i, j) lies at data[i * row_step + j * column_step]; one of the steps is 1.
template <class T>
struct Operand {
  const T* data;
  int64_t row_step;
  int64_t column_step;
};

struct ProductShape {
  int64_t m, n, k;
  int64_t c_stride;
  double alpha, beta;  // C = beta C + alpha A B; beta = 0 does not read C
  bool lower;          // only entries with column <= row
};

// C [m, n] = beta C + alpha A B with A [m, k] and B [k, n]. The result is as wide as the operands, or double.
template <class T, class Out>
void product(const Operand<T>& a, const Operand<T>& b, Out* c, const ProductShape& shape, int threads);

// The tile kernels of one instruction set. A panel of A holds `rows` rows, entry (i, l) at [l * rows + i]; a panel of B
// holds `columns` columns, entry (l, j) at [l * columns + j].
template <class T>
struct TileKernels {
  int rows;
  int columns;
  // C = beta C + alpha A B for one whole tile.
  void (*tile)(int64_t k, const T* a, const T* b, T* c, int64_t c_stride, T alpha, T beta);
  // C = C + A B, and meanwhile asks for next_count pairs of cache lines, next_step apart from `next` on.
  void (*add_tile_ahead)(int64_t k, const T* a, const T* b, T* c, int64_t c_stride, const T* next, int64_t next_step,
                         int64_t next_count);
  void (*wide_tile)(int64_t k, const T* a, const T* b, double* c, int64_t c_stride, double alpha, double beta);
  // Packs `count` rows (columns) of depth k into panels `width` wide: the entry `along` of line `i` lies at
  // source[i * line_step + along * depth_step]. Panels begin panel_step apart; the last is filled up with zeros.
  void (*pack)(const T* source, int64_t line_step, int64_t depth_step, int64_t count, int64_t k, int width,
               int64_t panel_step, T* target);
};

struct GemmKernels {
  TileKernels<double> f64;
  TileKernels<float> f32;
};

extern const GemmKernels kGemmKernelsBaseline;
#if defined(__x86_64__)
extern const GemmKernels kGemmKernelsAvx2;
extern const GemmKernels kGemmKernelsAvx512;
#endif

const GemmKernels& gemm_kernels();  // those of this processor

// The greatest tile of any instruction set.
constexpr int64_t kMostTileEntries = 8 * 48;

}  // namespace surprisal
