#include "optimizer_steps.hpp"

#include <algorithm>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Entries a thread takes at a time. Stores are ordinary ones: the lines were read a moment before, and streaming stores
// took 1.5 times as long on a Zen 4.
constexpr int64_t kGrain = 1 << 15;

template <class T>
const OptimizerLoops<T>& loops() {
  const T* const kind = nullptr;
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kOptimizerAvx512.of(kind);
  if (simd_level() == Simd::Avx2) return kOptimizerAvx2.of(kind);
#endif
  return kOptimizerBaseline.of(kind);
}

// `step(begin, count, factor)` on stretches of one factor, in ranges that threads share.
template <class Step>
void over_segments(const DecaySegments& segments, int threads, Step&& step) {
  const double* const ends = segments.ends;
  const int64_t total = segments.count == 0 ? 0 : static_cast<int64_t>(ends[segments.count - 1]);
  parallel_for(total, kGrain, threads, [&](int64_t begin, int64_t end) {
    int64_t s = std::upper_bound(ends, ends + segments.count, static_cast<double>(begin)) - ends;
    for (; begin < end; s++) {
      const int64_t stop = std::min(end, static_cast<int64_t>(ends[s]));
      if (stop > begin) step(begin, stop - begin, segments.factors[s]);
      begin = std::max(begin, stop);
    }
  });
}

}  // namespace

template <class T>
void adam_step(const OptimizerBuffers<T>& buffers, const DecaySegments& segments, const AdamSettings& settings,
               int threads) {
  const OptimizerLoops<T>& use = loops<T>();
  over_segments(segments, threads, [&](int64_t begin, int64_t count, double factor) {
    use.adam(buffers.from(begin), count, factor, settings);
  });
}

template <class T>
void momentum_step(const OptimizerBuffers<T>& buffers, const DecaySegments& segments, const MomentumSettings& settings,
                   int threads) {
  const OptimizerLoops<T>& use = loops<T>();
  over_segments(segments, threads, [&](int64_t begin, int64_t count, double factor) {
    use.momentum(buffers.from(begin), count, factor, settings);
  });
}

template <class T>
void lion_step(const OptimizerBuffers<T>& buffers, const DecaySegments& segments, const LionSettings& settings,
               int threads) {
  const OptimizerLoops<T>& use = loops<T>();
  over_segments(segments, threads, [&](int64_t begin, int64_t count, double factor) {
    use.lion(buffers.from(begin), count, factor, settings);
  });
}

template <class T>
void squares_of_blocks(const T* x, int64_t count, double* blocks, int threads) {
  const OptimizerLoops<T>& use = loops<T>();
  const int64_t pieces = (count + kSquaresBlock - 1) / kSquaresBlock;
  parallel_for(pieces, 4, threads, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t first = b * kSquaresBlock;
      blocks[b] = use.squares(x + first, std::min(kSquaresBlock, count - first));
    }
  });
}

template <class T>
void add_into(T* target, const T* source, int64_t count, int threads) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) target[i] += source[i];
  });
}

template <class T>
void scale_buffer(T* x, int64_t count, double factor, int threads) {
  const T rounded = static_cast<T>(factor);
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) x[i] *= rounded;
  });
}

#define SURPRISAL_OPTIMIZER(T)                                                                                \
  template void adam_step(const OptimizerBuffers<T>&, const DecaySegments&, const AdamSettings&, int);         \
  template void momentum_step(const OptimizerBuffers<T>&, const DecaySegments&, const MomentumSettings&, int); \
  template void lion_step(const OptimizerBuffers<T>&, const DecaySegments&, const LionSettings&, int);         \
  template void squares_of_blocks(const T*, int64_t, double*, int);                                            \
  template void add_into(T*, const T*, int64_t, int);                                                          \
  template void scale_buffer(T*, int64_t, double, int);
SURPRISAL_OPTIMIZER(float)
SURPRISAL_OPTIMIZER(double)
#undef SURPRISAL_OPTIMIZER

}  // namespace surprisal
