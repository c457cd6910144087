#include "processor.hpp"

#include <atomic>

namespace surprisal {
namespace {

Simd detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Simd::Avx512;
  }
  if (avx2) return Simd::Avx2;
#endif
  return Simd::Baseline;
}

Simd supported() {
  static const Simd level = detect();
  return level;
}

std::atomic<int> limit{static_cast<int>(Simd::Avx512)};

}  // namespace

Simd simd_level() {
  const Simd most = static_cast<Simd>(limit.load(std::memory_order_relaxed));
  return most < supported() ? most : supported();
}

void limit_simd_level(Simd level) { limit.store(static_cast<int>(level), std::memory_order_relaxed); }

const char* simd_name() {
  switch (simd_level()) {
    case Simd::Avx512:
      return "avx512";
    case Simd::Avx2:
      return "avx2+fma";
    default:
#if defined(__aarch64__)
      return "neon";
#else
      return "baseline";
#endif
  }
}

}  // namespace surprisal
