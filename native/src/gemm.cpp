#include "gemm.hpp"

#include <algorithm>

#include "aligned_buffer.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// A block of A of kRowBlock rows and one panel depth stays in the second-level cache of a core; a piece of work is
// one such block times kColumnBlock columns, enough to be worth its packing. All are multiples of every tile.
constexpr int64_t kRowBlock = 192;
constexpr int64_t kColumnBlock = 480;
// Columns of B that are packed at once and shared by all threads.
constexpr int64_t kSharedColumns = 4320;

const TileKernels<double>& kernels_for(double) { return gemm_kernels().f64; }
const TileKernels<float>& kernels_for(float) { return gemm_kernels().f32; }

void run_tile(const TileKernels<double>& use, int64_t k, const double* a, const double* b, double* c, int64_t stride,
              double alpha, double beta) {
  use.tile(k, a, b, c, stride, alpha, beta);
}
void run_tile(const TileKernels<float>& use, int64_t k, const float* a, const float* b, float* c, int64_t stride,
              double alpha, double beta) {
  use.tile(k, a, b, c, stride, static_cast<float>(alpha), static_cast<float>(beta));
}
void run_tile(const TileKernels<float>& use, int64_t k, const float* a, const float* b, double* c, int64_t stride,
              double alpha, double beta) {
  use.wide_tile(k, a, b, c, stride, alpha, beta);
}

// The part of a tile that lies inside the result.
template <class T, class Out>
void run_edge(const TileKernels<T>& use, int64_t k, const T* a, const T* b, Out* c, const ProductShape& shape,
              double beta, int64_t row, int64_t column) {
  alignas(64) Out sums[kMostTileEntries];
  run_tile(use, k, a, b, sums, use.columns, 1, 0);
  const int64_t rows = std::min<int64_t>(use.rows, shape.m - row);
  for (int64_t i = 0; i < rows; i++) {
    const int64_t inside = std::min<int64_t>(use.columns, shape.n - column);
    const int64_t columns = shape.lower ? std::min(inside, row + i - column + 1) : inside;
    Out* to = c + (row + i) * shape.c_stride + column;
    const Out alpha = static_cast<Out>(shape.alpha);
    const Out keep = static_cast<Out>(beta);
    for (int64_t j = 0; j < columns; j++) {
      const Out term = alpha * sums[i * use.columns + j];
      to[j] = beta == 0 ? term : keep * to[j] + term;
    }
  }
}

template <class Out>
void scale(Out* c, const ProductShape& shape) {
  for (int64_t i = 0; i < shape.m; i++) {
    const int64_t columns = shape.lower ? std::min(shape.n, i + 1) : shape.n;
    Out* row = c + i * shape.c_stride;
    for (int64_t j = 0; j < columns; j++) row[j] = shape.beta == 0 ? 0 : static_cast<Out>(shape.beta) * row[j];
  }
}

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// One panel of B, columns [first, first + columns), and what it is multiplied with.
template <class T, class Out>
struct Panel {
  const TileKernels<T>& use;
  const Operand<T>& a;
  const T* packed;
  Out* c;
  const ProductShape& shape;
  int64_t depth, depth_first;
  int64_t first, columns;
  double beta;

  void multiply_block(int64_t row, int64_t column) const {
    const int64_t rows = std::min(kRowBlock, shape.m - row);
    const int64_t last = std::min(column + kColumnBlock, columns);
    if (shape.lower && first + column > row + rows - 1) return;
    static thread_local AlignedBuffer<T> buffer;
    buffer.reserve(kRowBlock * kPanelDepth);
    T* block = buffer.data();
    use.pack(a.data + row * a.row_step + depth_first * a.column_step, a.row_step, a.column_step, rows, depth, use.rows,
             use.rows * depth, block);
    for (int64_t j = column; j < last; j += use.columns) {
      const T* right = packed + j * depth;
      const bool whole_columns = j + use.columns <= columns;
      for (int64_t i = 0; i < rows; i += use.rows) {
        const int64_t at_row = row + i;
        const int64_t at_column = first + j;
        if (shape.lower && at_column > at_row + use.rows - 1) continue;
        const bool whole = whole_columns && i + use.rows <= rows;
        const bool below = !shape.lower || at_column + use.columns - 1 <= at_row;
        if (whole && below) {
          run_tile(use, depth, block + i * depth, right, c + at_row * shape.c_stride + at_column, shape.c_stride,
                   shape.alpha, beta);
        } else {
          run_edge(use, depth, block + i * depth, right, c, shape, beta, at_row, at_column);
        }
      }
    }
  }
};

}  // namespace

const GemmKernels& gemm_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kGemmKernelsAvx512;
    case Simd::Avx2:
      return kGemmKernelsAvx2;
    default:
      return kGemmKernelsBaseline;
  }
#else
  return kGemmKernelsBaseline;
#endif
}

template <class T, class Out>
void product(const Operand<T>& a, const Operand<T>& b, Out* c, const ProductShape& shape, int threads) {
  if (shape.m <= 0 || shape.n <= 0) return;
  if (shape.k <= 0 || shape.alpha == 0) return scale(c, shape);
  const TileKernels<T>& use = kernels_for(T{});
  AlignedBuffer<T> packed(round_up(std::min(kSharedColumns, shape.n), use.columns) * std::min(kPanelDepth, shape.k));
  for (int64_t first = 0; first < shape.n; first += kSharedColumns) {
    const int64_t columns = std::min(kSharedColumns, shape.n - first);
    for (int64_t from = 0; from < shape.k; from += kPanelDepth) {
      const int64_t depth = std::min(kPanelDepth, shape.k - from);
      const int64_t panels = (columns + use.columns - 1) / use.columns;
      parallel_for(panels, 8, threads, [&](int64_t begin, int64_t end) {
        const int64_t column = first + begin * use.columns;
        use.pack(b.data + column * b.column_step + from * b.row_step, b.column_step, b.row_step,
                 std::min(end * use.columns, columns) - begin * use.columns, depth, use.columns, use.columns * depth,
                 packed.data() + begin * use.columns * depth);
      });
      const Panel<T, Out> panel{use,  a,     packed.data(), c,       shape,
                                depth, from, first,         columns, from == 0 ? shape.beta : 1.0};
      const int64_t across = (columns + kColumnBlock - 1) / kColumnBlock;
      const int64_t down = (shape.m + kRowBlock - 1) / kRowBlock;
      // From the bottom: under `lower` the long rows come first, and the short ones fill the gaps.
      parallel_for(across * down, 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; piece++) {
          panel.multiply_block((down - 1 - piece / across) * kRowBlock, piece % across * kColumnBlock);
        }
      });
    }
  }
}

template void product(const Operand<double>&, const Operand<double>&, double*, const ProductShape&, int);
template void product(const Operand<float>&, const Operand<float>&, float*, const ProductShape&, int);
template void product(const Operand<float>&, const Operand<float>&, double*, const ProductShape&, int);

}  // namespace surprisal
