#include "absmax_rounding.hpp"

#include <algorithm>
#include <vector>

#include "narrow.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

const RoundingKernels& rounding_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kRoundingAvx512;
    case Simd::Avx2:
      return kRoundingAvx2;
    default:
      break;
  }
#endif
  return kRoundingBaseline;
}

}  // namespace

void round_to_absmax(const float* x, int64_t rows, int64_t columns, int64_t group, uint16_t* scales, uint8_t* codes,
                     int threads) {
  const RoundingKernels& use = rounding_kernels();
  const int64_t groups = (columns + group - 1) / group;
  const int64_t row_bytes = (columns + 1) / 2;
  parallel_for(rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns)), threads,
               [&](int64_t begin, int64_t end) {
                 std::vector<uint8_t> row(static_cast<size_t>(2 * row_bytes));
                 for (int64_t r = begin; r < end; r++) {
                   const float* weights = x + r * columns;
                   // Of an odd width the last half byte is the code of zero.
                   row.back() = 8;
                   for (int64_t g = 0; g < groups; g++) {
                     const int64_t from = g * group;
                     const int64_t count = std::min(group, columns - from);
                     const uint16_t half = half_of_float(use.largest(weights + from, count) / 7.0f);
                     const float scale = float_of_half(half);
                     scales[r * groups + g] = half;
                     if (scale > 0) {
                       use.codes(weights + from, count, scale, row.data() + from);
                     } else {
                       std::fill_n(row.data() + from, count, uint8_t{8});
                     }
                   }
                   uint8_t* packed = codes + r * row_bytes;
                   for (int64_t i = 0; i < row_bytes; i++) {
                     packed[i] = static_cast<uint8_t>(row[2 * i] | (row[2 * i + 1] << 4));
                   }
                 }
               });
}

}  // namespace surprisal
