#include "error_feedback.hpp"

#include <algorithm>

#include "aligned_buffer.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

const FeedbackLanes& feedback_lanes() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kFeedbackLanesAvx512;
  if (simd_level() == Simd::Avx2) return kFeedbackLanesAvx2;
#endif
  return kFeedbackLanesBaseline;
}

}  // namespace

void feedback_step(const FeedbackStep& step, int threads) {
  const FeedbackLanes& use = feedback_lanes();
  const int64_t tiles = (step.rows + use.lanes - 1) / use.lanes;
  parallel_for(tiles, 1, threads, [&](int64_t begin, int64_t end) {
    static thread_local AlignedBuffer<float> scratch;
    scratch.reserve(use.scratch_floats(step));
    for (int64_t tile = begin; tile < end; tile++) {
      const int64_t first = tile * use.lanes;
      use.rows(step, first, std::min(use.lanes, step.rows - first), scratch.data());
    }
  });
}

}  // namespace surprisal
