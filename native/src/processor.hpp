// The instruction sets of the processor that runs this, found once.
#pragma once

namespace surprisal {

enum class Simd : int { Baseline = 0, Avx2 = 1, Avx512 = 2 };

// The widest level that has kernels here and that the processor and its operating system support.
Simd simd_level();

// Lowers the level for what follows (tests compare levels); never above what is supported.
void limit_simd_level(Simd level);

// "avx512", "avx2+fma", "neon" or "baseline".
const char* simd_name();

}  // namespace surprisal
