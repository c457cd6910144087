// The parts of decoding that are compiled once an instruction set.
#pragma once
#include <cstdint>

#include "pyramid_index.hpp"

namespace surprisal {

// Beyond this tables would exceed all bounds (src/kernels/pyramid-index.ts refuses them first).
constexpr int kMostIndexLimbs = 64;

struct DecodeKernels {
  // Points [count, D] of indices [count, limbs], all below N. `decode_large` is for tables whose coordinates often exceed
  // a window of 8.
  void (*decode)(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses);
  void (*decode_large)(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses);
  // target[g] = float(amplitudes[g] / ||pulses[g]||) * pulses[g], the factor formed in double.
  void (*scale)(const PyramidTable& table, const int16_t* pulses, int64_t count, const double* amplitudes,
                float* target);
};

extern const DecodeKernels kDecodeKernelsBaseline;
#if defined(__x86_64__)
// AVX-512 adds nothing: its windows of one register straddle cache lines.
extern const DecodeKernels kDecodeKernelsAvx2;
#endif

}  // namespace surprisal
