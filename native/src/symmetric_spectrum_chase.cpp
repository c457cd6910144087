// Band to tridiagonal: sweep j clears column j below the entry beside the diagonal, and chases the bulge that this
// makes down the band in steps of kBand. Step k of a sweep may run when step k + 1 of the sweep before has: groups of
// sweeps run interleaved, so that blocks stay in the cache, and threads work on successive groups.
#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "symmetric_spectrum.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr int64_t kGroup = 8;

// Steps of a group's last sweep that are done; on its own cache line.
struct alignas(64) Progress {
  std::atomic<int64_t> steps{0};
};

int64_t steps_of(int64_t sweep, int64_t n) { return (n - 1 - sweep + kBand - 1) / kBand; }

void wait_for(const Progress& progress, int64_t steps) {
  for (int64_t spins = 0; progress.steps.load(std::memory_order_acquire) < steps; spins++) {
    if (spins > 200) std::this_thread::yield();
  }
}

}  // namespace

void reduce_band(double* band, int64_t n, double* diagonal, double* off, int threads) {
  const SpectrumKernels& kernels = spectrum_kernels();
  const int64_t sweeps = std::max<int64_t>(n - 2, 0);
  const int64_t groups = (sweeps + kGroup - 1) / kGroup;
  const std::unique_ptr<Progress[]> progress(new Progress[static_cast<size_t>(groups)]);
  // The pool hands out groups in order: one that is waited for is at work or done.
  parallel_for(groups, 1, threads, [&](int64_t first_group, int64_t last_group) {
    for (int64_t group = first_group; group < last_group; group++) {
      const int64_t first = group * kGroup;
      const int64_t count = std::min(kGroup, sweeps - first);
      Reflection reflections[kGroup][2];
      const int64_t ticks = steps_of(first, n) + 2 * (count - 1);
      for (int64_t tick = 0; tick < ticks; tick++) {
        if (group > 0) wait_for(progress[group - 1], std::min(tick + 2, steps_of(first - 1, n)));
        for (int64_t q = 0; q < count; q++) {
          const int64_t step = tick - 2 * q;
          if (step < 0) break;
          if (step >= steps_of(first + q, n)) continue;
          Reflection* made = &reflections[q][step % 2];
          double* column = band + (first + q) * kBandStride;
          if (step == 0) {
            kernels.begin_chase(column, made);
          } else {
            kernels.chase(column + (1 + step * kBand) * kBandStride, &reflections[q][1 - step % 2], made);
          }
        }
        const int64_t last_step = tick - 2 * (count - 1) + 1;
        if (last_step > 0) progress[group].steps.store(last_step, std::memory_order_release);
      }
    }
  });
  for (int64_t j = 0; j < n; j++) diagonal[j] = band[j * kBandStride];
  for (int64_t j = 0; j + 1 < n; j++) off[j] = band[j * kBandStride + 1];
}

}  // namespace surprisal
