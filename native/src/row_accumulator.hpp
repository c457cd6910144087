// The caller's accumulator of many rows, and folding a block of logits into it.
#pragma once
#include <cstdint>

#include "row_statistics.hpp"

namespace surprisal {

// Fields of the accumulator, each an array of `rows` doubles; the orders' power sums follow, one array an order.
enum Field : int {
  kMax = 0,
  kZ,
  kA,
  kQ,
  kHalf,
  kSquare,
  kFiniteSum,
  kFiniteCount,
  kSupport,       // logits with e^(x - m) > 0
  kSupportLeast,  // the smallest of them
  kColumns,
  kTargetLogit,
  kTargetSeen,
  kGreater,
  kRankedColumns,
  kPowers,
};

struct RowBlock {
  const uint8_t* data;
  Format format;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;  // elements
  int64_t column_offset;
  int64_t row_offset;  // of the first row in the accumulator
};

struct RowAccumulator {
  int64_t rows;
  double* fields;
  double* top_values;    // [rows, request.top], falling
  int32_t* top_columns;  // -1 where empty
  RowRequest request;
  const int32_t* targets;       // [rows] or null; -1 for none
  const double* target_logits;  // [rows] or null; NaN where unknown
};

// Returns the first row of the block that holds NaN or +inf, or -1. The accumulator is then of no further use.
int64_t accumulate_rows(const RowBlock& block, RowAccumulator& accumulator, int threads);

// Second pass, over rows whose `wanted` is not 0: varentropy[row_offset + r] += sum over the block of
// p (-log p - entropy)^2, support[row_offset + r] += number of logits with e^(x - max) > 0.
void accumulate_second(const RowBlock& block, const uint8_t* wanted, const double* max, const double* log_sum_exp,
                       const double* entropy, double* varentropy, double* support, int threads);

}  // namespace surprisal
