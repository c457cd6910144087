#include "row_accumulator.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "half.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {

const RowKernels& row_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kRowKernelsAvx512;
    case Simd::Avx2:
      return kRowKernelsAvx2;
    default:
      break;
  }
#endif
  return kRowKernelsBaseline;
}

namespace {

int64_t element_bytes(Format format) {
  switch (format) {
    case Format::F64:
      return 8;
    case Format::F32:
      return 4;
    default:
      return 2;
  }
}

double element_at(const uint8_t* row, Format format, int64_t column) {
  const uint8_t* at = row + column * element_bytes(format);
  double wide;
  float single;
  uint16_t half;
  switch (format) {
    case Format::F64:
      std::memcpy(&wide, at, 8);
      return wide;
    case Format::F32:
      std::memcpy(&single, at, 4);
      return single;
    case Format::F16:
      std::memcpy(&half, at, 2);
      return float_of_half(half);
    default:
      std::memcpy(&half, at, 2);
      return float_of_bfloat(half);
  }
}

// e^(order (from - to)), 0 when `from` is -inf.
double rescale(double from, double to, double order) {
  return from == to ? 1 : std::exp(order * (from - to));
}

// Folds the sums of further columns into row r: the larger maximum becomes the reference of both. `support` logits of
// those columns, the least of them `support_least`, stand out from the new maximum.
void merge(RowAccumulator& into, int64_t r, const RowSums& sums, double new_max, int64_t support,
           double support_least) {
  const int64_t stride = into.rows;
  double* f = into.fields + r;
  if (sums.max > -std::numeric_limits<double>::infinity()) {
    const double old_max = f[kMax * stride];
    double* z = f + kZ * stride;
    double* a = f + kA * stride;
    double* q = f + kQ * stride;
    double* half = f + kHalf * stride;
    double* square = f + kSquare * stride;
    if (*z > 0) {
      const double s = old_max - new_max;
      const double scale = rescale(old_max, new_max, 1);
      if (scale == 0) {
        *z = *a = *q = 0;
      } else {
        *q = scale * (*q + s * (2 * *a + s * *z));
        *a = scale * (*a + s * *z);
        *z *= scale;
      }
      *half *= rescale(old_max, new_max, 0.5);
      *square *= rescale(old_max, new_max, 2);
      for (int k = 0; k < into.request.order_count; k++) {
        f[(kPowers + k) * stride] *= rescale(old_max, new_max, into.request.orders[k]);
      }
    }
    const double s = sums.max - new_max;
    const double scale = rescale(sums.max, new_max, 1);
    if (scale > 0) {
      *q += scale * (sums.q + s * (2 * sums.a + s * sums.z));
      *a += scale * (sums.a + s * sums.z);
      *z += scale * sums.z;
    }
    *half += rescale(sums.max, new_max, 0.5) * sums.half;
    *square += rescale(sums.max, new_max, 2) * sums.square;
    for (int k = 0; k < into.request.order_count; k++) {
      f[(kPowers + k) * stride] += rescale(sums.max, new_max, into.request.orders[k]) * sums.powers[k];
    }
    // All that was counted lies below what still counts.
    if (!(old_max - new_max > kSupportDepth)) {
      f[kSupport * stride] = 0;
      f[kSupportLeast * stride] = std::numeric_limits<double>::infinity();
    }
    f[kSupport * stride] += static_cast<double>(support);
    f[kSupportLeast * stride] = std::min(f[kSupportLeast * stride], support_least);
    f[kMax * stride] = new_max;
  }
  f[kFiniteSum * stride] += sums.finite_sum;
  f[kFiniteCount * stride] += static_cast<double>(sums.finite_count);
}

bool accumulate_row(const RowKernels& kernels, const RowBlock& block, RowAccumulator& into, int64_t block_row) {
  const int64_t r = block.row_offset + block_row;
  const int64_t stride = into.rows;
  const uint8_t* row = block.data + block_row * block.row_stride * element_bytes(block.format);
  double* f = into.fields + r;

  RowSums sums{};
  sums.max = -std::numeric_limits<double>::infinity();
  sums.least = std::numeric_limits<double>::infinity();
  const int capacity = into.request.top;
  RowTop top{into.top_values + r * capacity, into.top_columns + r * capacity, capacity, 0, block.column_offset};
  while (top.count < capacity && top.columns[top.count] >= 0) top.count++;
  if (!kernels.pass[static_cast<int>(block.format)](row, block.columns, into.request, sums, top)) return false;
  const double new_max = std::max(f[kMax * stride], sums.max);
  int64_t support = sums.finite_count;
  double support_least = sums.least;
  if (!(sums.least - new_max > kSupportDepth) && sums.finite_count > 0) {
    support_least = std::numeric_limits<double>::infinity();
    support = kernels.support[static_cast<int>(block.format)](row, block.columns, new_max, support_least);
  }
  merge(into, r, sums, new_max, support, support_least);
  f[kColumns * stride] += static_cast<double>(block.columns);

  const int32_t target = into.targets == nullptr ? -1 : into.targets[r];
  if (target < 0) return true;
  double* logit = f + kTargetLogit * stride;
  double* seen = f + kTargetSeen * stride;
  const int64_t local = target - block.column_offset;
  const bool inside = local >= 0 && local < block.columns;
  if (inside) {
    *logit = element_at(row, block.format, local);
    *seen = 1;
  } else if (*seen == 0 && into.target_logits != nullptr) {
    *logit = into.target_logits[r];
  }
  if (!into.request.full) return true;
  // A logit the caller computed may differ from the stored one in the last bits. Every block must compare with the
  // same number, so the caller's goes before the block's own; the target itself never counts.
  const bool given = into.target_logits != nullptr && !std::isnan(into.target_logits[r]);
  const double limit = given ? into.target_logits[r] : *logit;
  if (std::isnan(limit)) return true;
  int64_t greater = kernels.count[static_cast<int>(block.format)](row, block.columns, limit);
  if (inside && *logit > limit) greater--;
  f[kGreater * stride] += static_cast<double>(greater);
  f[kRankedColumns * stride] += static_cast<double>(block.columns);
  return true;
}

// Rows a thread takes at a time: about a quarter of a megabyte, so that none waits long for the last.
int64_t row_grain(const RowBlock& block) {
  return std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(1, block.columns * element_bytes(block.format)));
}

}  // namespace

int64_t accumulate_rows(const RowBlock& block, RowAccumulator& accumulator, int threads) {
  const RowKernels& kernels = row_kernels();
  std::atomic<int64_t> bad{std::numeric_limits<int64_t>::max()};
  parallel_for(block.rows, row_grain(block), threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      if (accumulate_row(kernels, block, accumulator, r)) continue;
      int64_t least = bad.load();
      while (r < least && !bad.compare_exchange_weak(least, r)) {
      }
    }
  });
  return bad.load() == std::numeric_limits<int64_t>::max() ? -1 : bad.load();
}

void accumulate_second(const RowBlock& block, const uint8_t* wanted, const double* max, const double* log_sum_exp,
                       const double* entropy, double* varentropy, double* support, int threads) {
  const RowKernels& kernels = row_kernels();
  const int format = static_cast<int>(block.format);
  parallel_for(block.rows, row_grain(block), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t r = block.row_offset + i;
      if (wanted[r] == 0) continue;
      const uint8_t* row = block.data + i * block.row_stride * element_bytes(block.format);
      double least = std::numeric_limits<double>::infinity();
      varentropy[r] += kernels.central[format](row, block.columns, log_sum_exp[r], entropy[r]);
      support[r] += static_cast<double>(kernels.support[format](row, block.columns, max[r], least));
    }
  });
}

}  // namespace surprisal
