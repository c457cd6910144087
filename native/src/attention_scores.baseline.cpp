#include "attention_scores_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const ScoreKernels kScoreKernelsBaseline = make_score_kernels<V32, V64, 4, 2>();

}  // namespace surprisal
