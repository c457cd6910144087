#include "hadamard.hpp"

#include <algorithm>
#include <cstring>

#include "aligned_buffer.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Entries that a range of rows holds at least, so that its scratch costs nothing beside it.
constexpr int64_t kRangeEntries = 1 << 18;
constexpr int64_t kSquareTile = 32;

const HadamardKernelSet& kernel_set() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kHadamardKernelsAvx512;
  if (simd_level() == Simd::Avx2) return kHadamardKernelsAvx2;
#endif
  return kHadamardKernelsBaseline;
}

template <class T>
const HadamardKernels<T>& kernels();
template <>
const HadamardKernels<float>& kernels<float>() {
  return kernel_set().f32;
}
template <>
const HadamardKernels<double>& kernels<double>() {
  return kernel_set().f64;
}

// Whole vectors of columns for a core: columns of one row where the segment is long, else the same columns of several.
template <class T>
class CoreTiles {
 public:
  CoreTiles(const Rotation<T>& rotation, const HadamardKernels<T>& kernels)
      : rotation_(rotation),
        kernels_(kernels),
        run_(std::min(rotation.segment, W)),
        in_(rotation.core * W),
        out_(rotation.core * W),
        tables_(kCoreGroups * 16 * W) {}

  // Rows that share a tile.
  int64_t rows() const { return W / run_; }

  // x [rows, n] with at most rows() rows.
  void apply(T* x, int64_t rows) {
    for (int64_t j = 0; j < rotation_.segment; j += run_) tile(x + j, rows);
  }

 private:
  static constexpr int64_t W = kCoreColumns<T>;

  void tile(T* x, int64_t rows) {
    const size_t bytes = static_cast<size_t>(run_) * sizeof(T);
    if (rows * run_ < W) memset(in_.data(), 0, static_cast<size_t>(rotation_.core * W) * sizeof(T));
    for (int64_t r = 0; r < rows; r++) {
      const T* from = x + r * rotation_.n;
      for (int64_t i = 0; i < rotation_.core; i++) {
        memcpy(in_.data() + i * W + r * run_, from + i * rotation_.segment, bytes);
      }
    }
    kernels_.core(in_.data(), out_.data(), rotation_.core, rotation_.codes, tables_.data());
    for (int64_t r = 0; r < rows; r++) {
      T* to = x + r * rotation_.n;
      for (int64_t i = 0; i < rotation_.core; i++) {
        memcpy(to + i * rotation_.segment, out_.data() + i * W + r * run_, bytes);
      }
    }
  }

  const Rotation<T>& rotation_;
  const HadamardKernels<T>& kernels_;
  int64_t run_;
  AlignedBuffer<T> in_, out_, tables_;
};

template <class T>
void permute(T* row, T* held, const int32_t* permutation, int64_t n, bool inverse) {
  memcpy(held, row, static_cast<size_t>(n) * sizeof(T));
  if (inverse) {
    for (int64_t i = 0; i < n; i++) row[permutation[i]] = held[i];
  } else {
    for (int64_t i = 0; i < n; i++) row[i] = held[permutation[i]];
  }
}

// At most as many rows as share a tile.
template <class T>
void rotate_few(T* x, int64_t rows, const Rotation<T>& rotation, const HadamardKernels<T>& kernels,
                CoreTiles<T>* tiles, T* held) {
  const int64_t n = rotation.n;
  for (int64_t r = 0; r < rows; r++) {
    T* row = x + r * n;
    if (!rotation.inverse) {
      kernels.multiply(row, rotation.diagonal, n);
      if (rotation.permutation != nullptr) permute(row, held, rotation.permutation, n, false);
    }
    kernels.butterflies(row, n, rotation.segment);
  }
  if (tiles != nullptr) tiles->apply(x, rows);
  if (!rotation.inverse) return;
  for (int64_t r = 0; r < rows; r++) {
    T* row = x + r * n;
    if (rotation.permutation != nullptr) permute(row, held, rotation.permutation, n, true);
    kernels.multiply(row, rotation.diagonal, n);
  }
}

// Calls `move(a, b)` for every tile at or below the diagonal and its mirror image.
template <class Move>
void square_tiles(double* matrix, int64_t n, int threads, Move&& move) {
  const int64_t tiles = (n + kSquareTile - 1) / kSquareTile;
  parallel_for(tiles, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t rows = std::min(kSquareTile, n - i * kSquareTile);
      for (int64_t j = 0; j <= i; j++) {
        const int64_t columns = std::min(kSquareTile, n - j * kSquareTile);
        double* lower = matrix + i * kSquareTile * n + j * kSquareTile;
        double* upper = matrix + j * kSquareTile * n + i * kSquareTile;
        move(lower, upper, rows, columns);
      }
    }
  });
}

void copy_tile(const double* from, int64_t stride, int64_t rows, int64_t columns, double* to) {
  for (int64_t i = 0; i < rows; i++) {
    memcpy(to + i * kSquareTile, from + i * stride, static_cast<size_t>(columns) * sizeof(double));
  }
}

// to [columns, rows] = from^T; rows of both lie apart, so both are walked row by row through `from`, a held tile.
void write_turned(const double* from, int64_t rows, int64_t columns, double* to, int64_t stride) {
  for (int64_t j = 0; j < columns; j++) {
    for (int64_t i = 0; i < rows; i++) to[j * stride + i] = from[i * kSquareTile + j];
  }
}

}  // namespace

template <class T>
void rotate_rows(T* x, int64_t rows, const Rotation<T>& rotation, int threads) {
  const HadamardKernels<T>& with = kernels<T>();
  const int64_t together = rotation.codes == nullptr ? 1 : kCoreColumns<T> / std::min(rotation.segment, kCoreColumns<T>);
  const int64_t bundles = (rows + together - 1) / together;
  const int64_t grain = std::max<int64_t>(1, kRangeEntries / (rotation.n * together));
  parallel_for(bundles, grain, threads, [&](int64_t begin, int64_t end) {
    AlignedBuffer<T> held(rotation.permutation == nullptr ? 0 : rotation.n);
    const auto each = [&](CoreTiles<T>* tiles) {
      for (int64_t bundle = begin; bundle < end; bundle++) {
        const int64_t first = bundle * together;
        const int64_t count = std::min(together, rows - first);
        rotate_few(x + first * rotation.n, count, rotation, with, tiles, held.data());
      }
    };
    if (rotation.codes == nullptr) {
      each(nullptr);
    } else {
      CoreTiles<T> tiles(rotation, with);
      each(&tiles);
    }
  });
}

template void rotate_rows<float>(float*, int64_t, const Rotation<float>&, int);
template void rotate_rows<double>(double*, int64_t, const Rotation<double>&, int);

void mirror_lower(double* matrix, int64_t n, int threads) {
  square_tiles(matrix, n, threads, [n](double* lower, double* upper, int64_t rows, int64_t columns) {
    double held[kSquareTile * kSquareTile];
    copy_tile(lower, n, rows, columns, held);
    if (lower == upper) {
      for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < i; j++) held[j * kSquareTile + i] = held[i * kSquareTile + j];
      }
    }
    write_turned(held, rows, columns, upper, n);
  });
}

void transpose_square(double* matrix, int64_t n, int threads) {
  square_tiles(matrix, n, threads, [n](double* lower, double* upper, int64_t rows, int64_t columns) {
    double held[kSquareTile * kSquareTile], other[kSquareTile * kSquareTile];
    copy_tile(lower, n, rows, columns, held);
    copy_tile(upper, n, columns, rows, other);
    write_turned(held, rows, columns, upper, n);
    if (lower != upper) write_turned(other, columns, rows, lower, n);
  });
}

template <class T>
void row_moments(const T* x, int64_t rows, int64_t columns, int64_t group, double* moments, double* energies,
                 int threads) {
  const HadamardKernels<T>& with = kernels<T>();
  const int64_t groups = (columns + group - 1) / group;
  const int64_t grain = std::max<int64_t>(1, kRangeEntries / std::max<int64_t>(1, columns));
  parallel_for(rows, grain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      with.moments(x + r * columns, columns, group, moments + 6 * r, energies + r * groups);
    }
  });
}

template void row_moments<float>(const float*, int64_t, int64_t, int64_t, double*, double*, int);
template void row_moments<double>(const double*, int64_t, int64_t, int64_t, double*, double*, int);

}  // namespace surprisal
