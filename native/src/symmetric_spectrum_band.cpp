// Full symmetric matrix to band: for every panel of kBand columns below the band, its QR factors I - V T V', and the
// two-sided update of what is left, A <- A - V W' - W V' with W = A V T - 1/2 V T' V' A V T (Dongarra, Hammarling &
// Sorensen 1989, in blocks). Both products run on packed tiles; the next panel is factored while the rest is updated.
#include <algorithm>
#include <cstring>

#include "aligned_buffer.hpp"
#include "gemm.hpp"
#include "symmetric_spectrum.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Columns (rows) of one piece of work: a multiple of every tile's.
constexpr int64_t kPiece = 96;
// A panel of columns holds Y = A V, V and W, each kBand deep.
constexpr int64_t kSections = 3 * kBand;
constexpr int64_t kDepth = 2 * kBand;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

class BandReduction {
 public:
  BandReduction(double* matrix, int64_t n, double* band, int threads)
      : matrix_(matrix),
        n_(n),
        band_(band),
        threads_(threads),
        tiles_(gemm_kernels().f64),
        kernels_(spectrum_kernels()),
        most_(round_up(n, kPiece)),
        vectors_(kBand * most_),
        left_vectors_(kBand * most_),
        columns_(kSections * most_),
        rows_(kDepth * most_),
        partial_(most_ / kPiece * kBand * kBand) {}

  void run() {
    if (n_ <= kBand + 1) return keep_rest(0);
    factor(0);
    for (int64_t begin = 0;; begin += kBand) {
      const int64_t order = n_ - begin - kBand;
      multiply(begin + kBand, order);
      combine(order);
      if (order <= kBand + 1) {
        update_all(begin + kBand, order);
        return keep_rest(begin + kBand);
      }
      update(begin + kBand, order);
    }
  }

 private:
  double* at(int64_t row, int64_t column) const { return matrix_ + row * n_ + column; }

  // The lower triangle from row and column `begin` on lies inside the band.
  void keep_rest(int64_t begin) {
    for (int64_t i = begin; i < n_; i++) {
      for (int64_t j = begin; j <= i; j++) band_[j * kBandStride + i - j] = *at(i, j);
    }
  }

  // Columns begin .. begin + kBand - 1 are up to date: their part of the band, and the reflections for the rows below.
  void factor(int64_t begin) {
    const int64_t first = begin + kBand;
    const int64_t rows = n_ - first;
    for (int64_t i = begin; i < first; i++) {
      for (int64_t j = begin; j <= i; j++) band_[j * kBandStride + i - j] = *at(i, j);
    }
    stride_ = round_up(rows, kPiece);
    double* v = vectors_.data();
    for (int64_t j = 0; j < kBand; j++) std::memset(v + j * stride_ + rows, 0, sizeof(double) * (stride_ - rows));
    constexpr int64_t kSquare = 8;
    for (int64_t i = 0; i < rows; i += kSquare) {
      const int64_t last = std::min(i + kSquare, rows);
      for (int64_t j = 0; j < kBand; j++) {
        for (int64_t l = i; l < last; l++) v[j * stride_ + l] = *at(first + l, begin + j);
      }
    }
    double r[kBand * kBand];
    kernels_.factor_panel(v, stride_, rows, r, triangle_);
    for (int64_t j = 0; j < kBand; j++) {
      for (int64_t i = 0; i <= std::min(j, rows - 1); i++) {
        band_[(begin + j) * kBandStride + kBand + i - j] = r[j * kBand + i];
      }
    }
    for (int64_t from = 0; from < rows; from += kPanelDepth) {
      const int64_t depth = std::min(kPanelDepth, rows - from);
      tiles_.pack(v + from, stride_, 1, kBand, depth, tiles_.rows, tiles_.rows * depth,
                  left_vectors_.data() + from * kBand);
    }
  }

  // Rows [from, from + depth) of the columns of the piece at `column` of the symmetric matrix at `corner`, as panels.
  void pack_symmetric(const double* corner, int64_t order, int64_t from, int64_t depth, int64_t column,
                      double* target) const {
    const int64_t columns = std::min(kPiece, order - column);
    const int64_t width = tiles_.columns;
    const int64_t panel_step = width * depth;
    if (from + depth <= column) {
      // What lies above the diagonal is stored below it, rows as columns.
      tiles_.pack(corner + column * n_ + from, n_, 1, columns, depth, tiles_.columns, panel_step, target);
    } else if (from >= column + columns) {
      tiles_.pack(corner + from * n_ + column, 1, n_, columns, depth, tiles_.columns, panel_step, target);
    } else {
      for (int64_t j = 0; j < columns; j += width) {
        pack_across(corner, from, depth, column + j, std::min(width, columns - j), target + j * depth);
      }
    }
  }

  // One panel that the diagonal may cross.
  void pack_across(const double* corner, int64_t from, int64_t depth, int64_t column, int64_t columns,
                   double* target) const {
    const int64_t width = tiles_.columns;
    const int64_t above = std::min(std::max<int64_t>(column - from, 0), depth);
    const int64_t below = std::min(std::max<int64_t>(column + columns - from, above), depth);
    tiles_.pack(corner + column * n_ + from, n_, 1, columns, above, tiles_.columns, 0, target);
    for (int64_t l = above; l < below; l++) {
      const int64_t row = from + l;
      double* to = target + l * width;
      for (int64_t c = 0; c < columns; c++) {
        to[c] = row >= column + c ? corner[row * n_ + column + c] : corner[(column + c) * n_ + row];
      }
      for (int64_t c = columns; c < width; c++) to[c] = 0;
    }
    tiles_.pack(corner + (from + below) * n_ + column, 1, n_, columns, depth - below, tiles_.columns, 0,
                target + below * width);
  }

  // What pack_symmetric reads next: `lines` lines of `length` entries, a row of the matrix apart.
  struct Ahead {
    const double* first;
    int64_t lines, length;
  };

  Ahead ahead_of(const double* corner, int64_t order, int64_t from, int64_t column) const {
    if (from >= order) return {corner, 0, 0};
    const int64_t depth = std::min(kPanelDepth, order - from);
    const int64_t columns = std::min(kPiece, order - column);
    if (from < column) return {corner + column * n_ + from, columns, depth};
    return {corner + from * n_ + column, depth, columns};
  }

  // Y = A V, and G = V' Y in parts.
  void multiply(int64_t begin, int64_t order) {
    const double* corner = at(begin, begin);
    const int64_t width = tiles_.columns;
    parallel_for((order + kPiece - 1) / kPiece, 1, threads_, [&](int64_t first, int64_t last) {
      static thread_local AlignedBuffer<double> buffer;
      buffer.reserve(kPanelDepth * kPiece + kBand * kPiece);
      double* packed = buffer.data();
      double* product = packed + kPanelDepth * kPiece;
      for (int64_t piece = first; piece < last; piece++) {
        const int64_t column = piece * kPiece;
        double* panels = columns_.data() + column * kSections;
        for (int64_t j = 0; j < std::min(kPiece, order - column); j += width) {
          std::memset(panels + j * kSections, 0, sizeof(double) * kBand * width);
        }
        for (int64_t from = 0; from < order; from += kPanelDepth) {
          const int64_t depth = std::min(kPanelDepth, order - from);
          pack_symmetric(corner, order, from, depth, column, packed);
          const double* left = left_vectors_.data() + from * kBand;
          // The wait for the next block hides behind the products of this one.
          const Ahead ahead = ahead_of(corner, order, from + depth, column);
          int64_t line = 0;
          for (int64_t j = 0; j < std::min(kPiece, order - column); j += width) {
            for (int64_t i = 0; i < kBand; i += tiles_.rows, line += 16) {
              tiles_.add_tile_ahead(depth, left + i * depth, packed + j * depth, panels + j * kSections + i * width,
                                    width, ahead.first + line, n_, line < ahead.length ? ahead.lines : 0);
            }
          }
        }
        // V beside Y, and both by rows for the inner products.
        const double* v = vectors_.data() + column;
        for (int64_t j = 0; j < std::min(kPiece, order - column); j += width) {
          double* panel = panels + j * kSections;
          for (int64_t k = 0; k < kBand; k++) {
            std::memcpy(panel + (kBand + k) * width, v + k * stride_ + j, sizeof(double) * width);
            std::memcpy(product + k * kPiece + j, panel + k * width, sizeof(double) * width);
          }
        }
        const int64_t count = std::min(kPiece, round_up(order - column, 8));
        for (int64_t k = 0; k < kBand; k++) {
          for (int64_t l = std::min(kPiece, order - column); l < count; l++) product[k * kPiece + l] = 0;
        }
        double* g = partial_.data() + piece * kBand * kBand;
        std::memset(g, 0, sizeof(double) * kBand * kBand);
        gather_vectors(v, count, packed);
        kernels_.add_inner_products(packed, product, kPiece, count, g);
      }
    });
  }

  void gather_vectors(const double* v, int64_t count, double* target) const {
    for (int64_t k = 0; k < kBand; k++) {
      std::memcpy(target + k * kPiece, v + k * stride_, sizeof(double) * count);
    }
  }

  // W, and V and W as rows for the update.
  void combine(int64_t order) {
    const int64_t pieces = (order + kPiece - 1) / kPiece;
    double g[kBand * kBand];
    double m[kBand * kBand];
    std::memset(g, 0, sizeof g);
    for (int64_t piece = 0; piece < pieces; piece++) {
      const double* part = partial_.data() + piece * kBand * kBand;
      for (int64_t i = 0; i < kBand * kBand; i++) g[i] += part[i];
    }
    kernels_.middle_factor(triangle_, g, m);
    // W' = [T' | m] [Y'; V'].
    alignas(64) double packed[kBand * kDepth];
    tiles_.pack(triangle_, 1, kBand, kBand, kBand, tiles_.rows, tiles_.rows * kDepth, packed);
    tiles_.pack(m, kBand, 1, kBand, kBand, tiles_.rows, tiles_.rows * kDepth, packed + tiles_.rows * kBand);
    const int64_t width = tiles_.columns;
    parallel_for(pieces, 1, threads_, [&](int64_t first, int64_t last) {
      for (int64_t j = first * kPiece; j < std::min(last * kPiece, order); j += width) {
        double* panel = columns_.data() + j * kSections;
        double* w = panel + kDepth * width;
        for (int64_t i = 0; i < kBand; i += tiles_.rows) {
          tiles_.tile(kDepth, packed + i * kDepth, panel, w + i * width, width, 1, 0);
        }
        // Rows of the update: W against V, V against W.
        for (int64_t i = 0; i < width; i += tiles_.rows) {
          double* to = rows_.data() + (j + i) * kDepth;
          for (int64_t k = 0; k < kBand; k++) {
            for (int64_t l = 0; l < tiles_.rows; l++) {
              to[k * tiles_.rows + l] = w[k * width + i + l];
              to[(kBand + k) * tiles_.rows + l] = panel[(kBand + k) * width + i + l];
            }
          }
        }
      }
    });
  }

  // A - V W' - W V' on rows [row, row + rows), columns [column, min(last, row's own)].
  void update_rows(double* corner, int64_t order, int64_t row, int64_t rows, int64_t column, int64_t last) const {
    const int64_t width = tiles_.columns;
    for (int64_t j = column; j < std::min(last, row + rows); j += width) {
      const double* right = columns_.data() + j * kSections + kBand * width;
      for (int64_t i = row; i < row + rows; i += tiles_.rows) {
        if (j > i + tiles_.rows - 1) continue;
        const double* left = rows_.data() + i * kDepth;
        if (i + tiles_.rows <= order && j + width - 1 <= i) {
          tiles_.tile(kDepth, left, right, corner + i * n_ + j, n_, -1, 1);
        } else {
          alignas(64) double sums[kMostTileEntries];
          tiles_.tile(kDepth, left, right, sums, width, 1, 0);
          for (int64_t r = i; r < std::min(i + tiles_.rows, order); r++) {
            const double* from = sums + (r - i) * width;
            double* to = corner + r * n_ + j;
            for (int64_t c = 0; c < std::min(width, r - j + 1); c++) to[c] -= from[c];
          }
        }
      }
    }
  }

  // The update of everything, and meanwhile the factors of the panel that begins at `begin`.
  void update(int64_t begin, int64_t order) {
    double* corner = at(begin, begin);
    const int64_t ahead = round_up(kBand, tiles_.columns);
    const int64_t pieces = (order + kPiece - 1) / kPiece;
    parallel_for(pieces + 1, 1, threads_, [&](int64_t first, int64_t last) {
      for (int64_t piece = first; piece < last; piece++) {
        if (piece == 0) {
          for (int64_t row = 0; row < order; row += kPiece) {
            update_rows(corner, order, row, std::min(kPiece, order - row), 0, ahead);
          }
          factor(begin);
        } else {
          // The longest rows first.
          const int64_t row = (pieces - piece) * kPiece;
          update_rows(corner, order, row, std::min(kPiece, order - row), ahead, order);
        }
      }
    });
  }

  void update_all(int64_t begin, int64_t order) { update_rows(at(begin, begin), order, 0, order, 0, order); }

  double* matrix_;
  int64_t n_;
  double* band_;
  int threads_;
  const TileKernels<double>& tiles_;
  const SpectrumKernels& kernels_;
  int64_t most_;
  int64_t stride_ = 0;
  AlignedBuffer<double> vectors_;       // V, by columns, stride_ apart
  AlignedBuffer<double> left_vectors_;  // V' packed as rows of a product, in panels of depth
  AlignedBuffer<double> columns_;       // Y, V and W in panels of columns
  AlignedBuffer<double> rows_;          // W and V in panels of rows
  AlignedBuffer<double> partial_;       // V' Y of every piece
  double triangle_[kBand * kBand];
};

}  // namespace

void reduce_to_band(double* matrix, int64_t n, double* band, int threads) {
  BandReduction(matrix, n, band, threads).run();
}

}  // namespace surprisal
