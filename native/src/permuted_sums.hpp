// Sums over matrices whose rows or columns are taken in another order. Row-major; `row_order` and `column_order` give
// the row or column of the operand for every one of the result, and null means as they lie.
#pragma once
#include <cstdint>

namespace surprisal {

struct PermutedMatrix {
  int64_t rows, columns;
  const int32_t* row_order;
  const int32_t* column_order;
};

// sum[i, j] += weight * x[row_order[i], column_order[j]]; with `overwrite`, = in place of +=. Product and sum are
// rounded one after the other.
template <class T>
void add_weighted(double* sum, const T* x, const PermutedMatrix& matrix, double weight, bool overwrite, int threads);

// target[i] = sum[i] / divisor, rounded to the target.
template <class T>
void divide_sum(const double* sum, int64_t count, double divisor, T* target, int threads);

// distances[i] = sum over j of (a[i, j] - b[row_order[i], column_order[j]])^2 in double, in eight lanes that are added in
// a fixed tree.
template <class T>
void squared_row_distances(const T* a, const T* b, const PermutedMatrix& matrix, double* distances, int threads);

}  // namespace surprisal
