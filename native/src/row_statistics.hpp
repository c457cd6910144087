// Row-wise softmax statistics of logits, in one pass, mergeable over vocabulary blocks.
#pragma once
#include <cstdint>

namespace surprisal {

enum class Format : int { F64 = 0, F32 = 1, F16 = 2, BF16 = 3 };

constexpr int kMostOrders = 16;

// What the sums of one row are to hold.
struct RowRequest {
  bool full;              // varentropy, half-order, square and finite sums as well
  int order_count;        // further orders alpha of sum e^(alpha (x - m))
  double orders[kMostOrders];
  int top;                // how many largest values to keep, 0 for none
};

// The sums of one row over the columns seen so far. `max` is m; z, a and q are the sums of e^(x-m) (x-m)^k for
// k = 0, 1, 2; half, square and powers are the sums of e^(alpha (x-m)) for alpha = 0.5, 2 and the further orders.
struct RowSums {
  double max;
  double z, a, q;
  double half, square;
  double powers[kMostOrders];
  double finite_sum;
  int64_t finite_count;
  double least;  // of the finite logits, +inf when there are none
};

// log(2^-1075): e^(x - m) is above 0 in double where x - m is above this.
constexpr double kSupportDepth = -745.1332191019412;

// The largest values of a row in falling order, with their columns; empty places hold column -1.
struct RowTop {
  double* values;
  int32_t* columns;
  int capacity;
  int count;
  int64_t column_offset;
};

// Folds `columns` logits at `row` into `sums` (which starts with max = -inf, least = +inf and zeros). False when one of them is NaN
// or +inf. `top` is fed when request.top > 0.
using RowPass = bool (*)(const void* row, int64_t columns, const RowRequest& request, RowSums& sums, RowTop& top);
// How many logits of the row are strictly greater than `target`.
using RowCount = int64_t (*)(const void* row, int64_t columns, double target);
// Sum of p (-log p - entropy)^2 with p = e^(x - log_sum_exp).
using RowCentral = double (*)(const void* row, int64_t columns, double log_sum_exp, double entropy);
// How many logits have e^(x - max) > 0; `least` becomes the smallest of them if it was larger.
using RowSupport = int64_t (*)(const void* row, int64_t columns, double max, double& least);

struct RowKernels {
  RowPass pass[4];  // indexed by Format
  RowCount count[4];
  RowCentral central[4];
  RowSupport support[4];
};

extern const RowKernels kRowKernelsBaseline;
#if defined(__x86_64__)
extern const RowKernels kRowKernelsAvx2;
extern const RowKernels kRowKernelsAvx512;
#endif

const RowKernels& row_kernels();  // those of this processor

}  // namespace surprisal
