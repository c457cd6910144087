#if defined(__x86_64__)
#include "attention_scores_kernel.hpp"
#include "vectors_avx2.hpp"

namespace surprisal {

const ScoreKernels kScoreKernelsAvx2 = make_score_kernels<V32, V64, 4, 3>();

}  // namespace surprisal
#endif
