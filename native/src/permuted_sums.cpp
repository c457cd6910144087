#include "permuted_sums.hpp"

#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Entries a thread takes at a time.
constexpr int64_t kGrain = 1 << 16;
constexpr int kLanes = 8;

int64_t rows_at_a_time(int64_t columns) {
  return columns >= kGrain || columns == 0 ? 1 : kGrain / columns;
}

double reduce_lanes(const double* lanes) {
  return lanes[0] + lanes[4] + (lanes[2] + lanes[6]) + (lanes[1] + lanes[5] + (lanes[3] + lanes[7]));
}

template <class T>
double row_distance(const T* a, const T* b, int64_t columns, const int32_t* order) {
  double lanes[kLanes] = {};
  const int64_t whole = columns - columns % kLanes;
  for (int64_t j = 0; j < whole; j += kLanes) {
    for (int lane = 0; lane < kLanes; lane++) {
      const double other = b[order == nullptr ? j + lane : order[j + lane]];
      const double difference = static_cast<double>(a[j + lane]) - other;
      lanes[lane] += difference * difference;
    }
  }
  for (int64_t j = whole; j < columns; j++) {
    const double difference = static_cast<double>(a[j]) - static_cast<double>(b[order == nullptr ? j : order[j]]);
    lanes[j - whole] += difference * difference;
  }
  return reduce_lanes(lanes);
}

}  // namespace

template <class T>
void add_weighted(double* sum, const T* x, const PermutedMatrix& matrix, double weight, bool overwrite, int threads) {
  const int64_t columns = matrix.columns;
  const int32_t* order = matrix.column_order;
  parallel_for(matrix.rows, rows_at_a_time(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const T* from = x + (matrix.row_order == nullptr ? i : matrix.row_order[i]) * columns;
      double* to = sum + i * columns;
      if (order != nullptr && overwrite) {
        for (int64_t j = 0; j < columns; j++) to[j] = weight * static_cast<double>(from[order[j]]);
      } else if (order != nullptr) {
        for (int64_t j = 0; j < columns; j++) to[j] += weight * static_cast<double>(from[order[j]]);
      } else if (overwrite) {
        for (int64_t j = 0; j < columns; j++) to[j] = weight * static_cast<double>(from[j]);
      } else {
        for (int64_t j = 0; j < columns; j++) to[j] += weight * static_cast<double>(from[j]);
      }
    }
  });
}

template <class T>
void divide_sum(const double* sum, int64_t count, double divisor, T* target, int threads) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) target[i] = static_cast<T>(sum[i] / divisor);
  });
}

template <class T>
void squared_row_distances(const T* a, const T* b, const PermutedMatrix& matrix, double* distances, int threads) {
  const int64_t columns = matrix.columns;
  parallel_for(matrix.rows, rows_at_a_time(columns), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = matrix.row_order == nullptr ? i : matrix.row_order[i];
      distances[i] = row_distance(a + i * columns, b + row * columns, columns, matrix.column_order);
    }
  });
}

template void add_weighted(double*, const float*, const PermutedMatrix&, double, bool, int);
template void add_weighted(double*, const double*, const PermutedMatrix&, double, bool, int);
template void divide_sum(const double*, int64_t, double, float*, int);
template void divide_sum(const double*, int64_t, double, double*, int);
template void squared_row_distances(const float*, const float*, const PermutedMatrix&, double*, int);
template void squared_row_distances(const double*, const double*, const PermutedMatrix&, double*, int);

}  // namespace surprisal
