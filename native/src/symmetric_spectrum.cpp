#include "symmetric_spectrum.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "aligned_buffer.hpp"
#include "processor.hpp"

namespace surprisal {
namespace {

// Up to this order the direct reduction is the faster one, on two threads of a processor with AVX2 or AVX-512.
constexpr int64_t kMostDirect = 384;

// Matrices whose largest entry lies beyond 2^+-kSafeExponent are scaled by a power of two, which is exact: sums of
// squares then neither overflow nor underflow where they count.
constexpr int kSafeExponent = 100;

// Largest magnitude of the lower triangle; NaN when an entry is not finite.
double largest_entry(const double* matrix, int64_t n) {
  double largest = 0;
  double nothing = 0;  // 0 times every entry: NaN once one is not finite
  for (int64_t i = 0; i < n; i++) {
    const double* row = matrix + i * n;
    double most[8] = {};
    double zero[8] = {};
    int64_t j = 0;
    for (; j + 8 <= i + 1; j += 8) {
      for (int q = 0; q < 8; q++) {
        const double size = std::fabs(row[j + q]);
        most[q] = size > most[q] ? size : most[q];
        zero[q] += 0 * size;
      }
    }
    for (; j <= i; j++) {
      most[0] = std::max(most[0], std::fabs(row[j]));
      zero[0] += 0 * row[j];
    }
    for (int q = 0; q < 8; q++) {
      largest = std::max(largest, most[q]);
      nothing += zero[q];
    }
  }
  return nothing == 0 ? largest : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

const SpectrumKernels& spectrum_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kSpectrumKernelsAvx512;
    case Simd::Avx2:
      return kSpectrumKernelsAvx2;
    default:
      return kSpectrumKernelsBaseline;
  }
#else
  return kSpectrumKernelsBaseline;
#endif
}

SpectrumOutcome symmetric_spectrum(double* matrix, int64_t n, double* values, int threads) {
  const double largest = largest_entry(matrix, n);
  if (std::isnan(largest)) return SpectrumOutcome::NotFinite;
  const int exponent = largest == 0 ? 0 : std::ilogb(largest);
  const bool extreme = std::abs(exponent) > kSafeExponent;
  if (extreme) {
    for (int64_t i = 0; i < n * n; i++) matrix[i] = std::ldexp(matrix[i], -exponent);
  }
  AlignedBuffer<double> off(n + 1);
  if (n <= kMostDirect) {
    AlignedBuffer<double> scratch(2 * n + 1);
    spectrum_kernels().reduce_directly(matrix, n, values, off.data(), scratch.data());
  } else {
    AlignedBuffer<double> band((n + kBandPadding) * kBandStride);
    std::memset(band.data(), 0, sizeof(double) * (n + kBandPadding) * kBandStride);
    reduce_to_band(matrix, n, band.data(), threads);
    reduce_band(band.data(), n, values, off.data(), threads);
  }
  if (!tridiagonal_values(values, off.data(), n)) return SpectrumOutcome::Stalled;
  std::sort(values, values + n);
  if (extreme) {
    for (int64_t i = 0; i < n; i++) values[i] = std::ldexp(values[i], exponent);
  }
  return SpectrumOutcome::Done;
}

}  // namespace surprisal
