#if defined(__x86_64__)
#include "loss_rows_kernel.hpp"
#include "vectors_avx2.hpp"

namespace surprisal {

const LossRowKernels kLossRowsAvx2 = make_loss_row_kernels<V64>();

}  // namespace surprisal
#endif
