#include "merge_dense.hpp"

#include <algorithm>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Elements a thread takes at a time.
constexpr int64_t kGrain = 1 << 16;
// Columns a thread takes at a time: their sums of a few pairs stay in the first cache.
constexpr int64_t kColumnGrain = 256;

const MergeDenseKernels& kernels() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kMergeDenseAvx512;
  if (simd_level() == Simd::Avx2) return kMergeDenseAvx2;
#endif
  return kMergeDenseBaseline;
}

}  // namespace

void combine_elements(const MergeInputs& inputs, const double* coefficients, Groups groups, const StoredOutput& output,
                      int threads) {
  const MergeDenseKernels& use = kernels();
  parallel_for(inputs.rows * inputs.columns, kGrain, threads, [&](int64_t begin, int64_t end) {
    use.combine(inputs, coefficients, groups, output, begin, end);
  });
}

void gram_blocks(const MergeInputs& inputs, const double* combination, double* target, int threads) {
  const MergeDenseKernels& use = kernels();
  const int64_t length = inputs.columns;
  const int64_t blocks = (length + kGramBlock - 1) / kGramBlock;
  const int64_t pairs = combination == nullptr ? inputs.pairs() : 1;
  // Short rows are taken together.
  const int64_t grain = std::max<int64_t>(1, 4 * kGramBlock / std::max<int64_t>(1, std::min(length, kGramBlock)));
  parallel_for(inputs.rows * blocks, grain, threads, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; item++) {
      const int64_t row = item / blocks;
      const int64_t begin = row * length + (item % blocks) * kGramBlock;
      const int64_t end = std::min(begin + kGramBlock, (row + 1) * length);
      use.gram(inputs, combination, begin, end, target + item * pairs);
    }
  });
}

void gram_columns(const MergeInputs& inputs, double* target, int threads) {
  const MergeDenseKernels& use = kernels();
  parallel_for(inputs.columns, kColumnGrain, threads,
               [&](int64_t begin, int64_t end) { use.gram_columns(inputs, begin, end, target); });
}

void swap_near(const StoredElements& a, const StoredElements& b, double t, int64_t count, const StoredOutput& output,
               int threads) {
  const MergeDenseKernels& use = kernels();
  const bool wide = a.type == DType::F64 || b.type == DType::F64;
  parallel_for(count, kGrain, threads,
               [&](int64_t begin, int64_t end) { use.swap_near(a, b, wide, t, output, begin, end); });
}

}  // namespace surprisal
