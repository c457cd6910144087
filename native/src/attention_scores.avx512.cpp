#if defined(__x86_64__)
#include "attention_scores_kernel.hpp"
#include "vectors_avx512.hpp"

namespace surprisal {

const ScoreKernels kScoreKernelsAvx512 = make_score_kernels<V32, V64, 8, 3>();

}  // namespace surprisal
#endif
