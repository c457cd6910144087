// Linear assignment: scans of a dense gain matrix [n, n], shortest augmenting paths over it, and the same with an auction on
// lists of candidates. Differences gain - dual are those of doubles, so every instruction set and src/kernels/
// linear-assignment-reference.ts, which says what each function does, give the same bits.
#pragma once
#include <cstdint>

namespace surprisal {

// Columns that one thread takes through all rows together.
constexpr int64_t kAssignmentStrip = 1024;

// Arrays of length n; -1 stands for none.
struct PartialAssignment {
  int64_t n;
  int32_t* column_of_row;
  int32_t* row_of_column;
  double* row_duals;
  double* column_duals;
};

// Entries of row i at starts[i] .. starts[i + 1], columns ascending.
struct Candidates {
  const int32_t* starts;
  const int32_t* columns;
  const double* gains;
};

// Least and largest gain of rows and columns, [n, 2] each. The place of the first gain that is not finite, or -1.
template <class T>
int64_t gain_ranges(const T* gain, int64_t n, double* rows, double* columns, int threads);

// `rows` [count] or null for all; `above` [n] or null; columns and values [count, k]. Row i is read from column i on when
// `spread`, from column 0 when not.
template <class T>
void row_candidates(const T* gain, int64_t n, const int32_t* rows, int64_t count, const double* column_duals,
                    const double* above, bool spread, int64_t k, int32_t* columns, double* values, int threads);

// rows [n, k].
template <class T>
void column_candidates(const T* gain, int64_t n, const double* row_duals, int64_t k, int32_t* rows, int threads);

template <class T>
void augment_dense(const T* gain, const int32_t* free, int64_t count, PartialAssignment state);

// False when the candidates hold no perfect matching.
bool augment_candidates(const Candidates& core, const int32_t* free, int64_t count, PartialAssignment state,
                        int64_t steps);

// False when so many bids were not enough.
bool auction_candidates(const Candidates& core, PartialAssignment state, double epsilon, int64_t bids);

// Turns the path that ends in the free column `sink` into assignments; from[j] is the row before column j.
template <class Index>
void flip_path(PartialAssignment& state, const Index* from, int32_t source, int32_t sink) {
  for (int32_t column = sink;;) {
    const int32_t row = static_cast<int32_t>(from[column]);
    const int32_t next = state.column_of_row[row];
    state.column_of_row[row] = column;
    state.row_of_column[column] = row;
    if (row == source) return;
    column = next;
  }
}

template <class T>
struct AssignmentScans {
  // Of a strip of columns [begin, end): ranges [n, 2] of the rows within it, and those of its columns at columns[2 * j].
  // False when a gain is not finite.
  bool (*ranges)(const T* gain, int64_t n, int64_t begin, int64_t end, double* rows, double* columns);
  // The k largest row[j] - duals[j] above `limit`; of equal ones the first from column `first` on, then from 0.
  void (*row)(const T* row, const double* duals, int64_t n, int64_t first, double limit, int64_t k, int32_t* columns,
              double* values);
  // The k largest gain[i, j] - duals[i] of each column of a strip at rows[k * j]; `values` and `limits` are work space,
  // [end - begin, k] and [end - begin].
  void (*columns)(const T* gain, int64_t n, int64_t begin, int64_t end, const double* duals, int64_t k, int32_t* rows,
                  double* values, double* limits);
  // distance[j] = min(distance[j], base - (row[j] - open[j])), from[j] = index where that is less; the least distance.
  double (*relax)(const T* row, const double* open, double base, int64_t index, int64_t n, double* distance,
                  int64_t* from);
};

template <class T>
struct ScansOf {
  static const AssignmentScans<T> baseline;
#if defined(__x86_64__)
  static const AssignmentScans<T> avx2;
  static const AssignmentScans<T> avx512;
#endif
};

}  // namespace surprisal
