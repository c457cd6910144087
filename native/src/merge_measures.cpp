#include "merge_measures.hpp"

#include <algorithm>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

const MeasureKernels& kernels() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kMeasureAvx512;
  if (simd_level() == Simd::Avx2) return kMeasureAvx2;
#endif
  return kMeasureBaseline;
}

template <class Block>
void over_blocks(int64_t elements, int threads, Block&& block) {
  const int64_t blocks = (elements + kGramBlock - 1) / kGramBlock;
  parallel_for(blocks, 4, threads, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b++) block(b, b * kGramBlock, std::min(elements, (b + 1) * kGramBlock));
  });
}

void count_bad_of(const StoredElements& tensor, int64_t begin, int64_t end, double* target) {
  double x[256];
  for (int64_t from = begin; from < end; from += 256) {
    const int64_t count = std::min<int64_t>(256, end - from);
    widen_to_f64(tensor.bytes + from * dtype_bytes(tensor.type), tensor.type, count, x, 1);
    for (int64_t k = 0; k < count; k++) {
      if (x[k] - x[k] == 0) continue;
      target[x[k] != x[k] ? 0 : 1]++;
      if (target[2] < 0) target[2] = static_cast<double>(from + k);
    }
  }
}

}  // namespace

void measure_blocks(const MeasuredTensors& measured, double* target, int threads) {
  const MeasureKernels& use = kernels();
  over_blocks(measured.elements, threads, [&](int64_t block, int64_t begin, int64_t end) {
    use.measure(measured, begin, end, target + block * measured.fields());
  });
}

void bad_blocks(const StoredElements& tensor, int64_t elements, double* target, int threads) {
  const MeasureKernels& use = kernels();
  over_blocks(elements, threads, [&](int64_t block, int64_t begin, int64_t end) {
    double* const of = target + 3 * block;
    of[0] = of[1] = 0;
    of[2] = -1;
    if (use.any_bad(tensor, begin, end)) count_bad_of(tensor, begin, end, of);
  });
}

}  // namespace surprisal
