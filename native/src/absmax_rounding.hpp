// Rounding to nearest on symmetric grids: 4-bit codes with one f16 scale a group, the plainest quantiser of weights.
// The same method in TypeScript: src/kernels/absmax-rounding.ts.
#pragma once
#include <cstdint>

namespace surprisal {

// Of x [rows, columns]: scales [rows, groups] = f16(max |x| / 7) as f16 bits, and codes round(x / scale) + 8 in
// [1, 15], two a byte, the lower nibble first, [rows, ceil(columns / 2)]. The last group of a row may be shorter.
void round_to_absmax(const float* x, int64_t rows, int64_t columns, int64_t group, uint16_t* scales, uint8_t* codes,
                     int threads);

struct RoundingKernels {
  float (*largest)(const float* x, int64_t count);
  // Codes of `count` weights, one a byte.
  void (*codes)(const float* x, int64_t count, float scale, uint8_t* codes);
};

extern const RoundingKernels kRoundingBaseline;
#if defined(__x86_64__)
extern const RoundingKernels kRoundingAvx2;
extern const RoundingKernels kRoundingAvx512;
#endif

}  // namespace surprisal
