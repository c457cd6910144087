#include "loss_rows_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const LossRowKernels kLossRowsBaseline = make_loss_row_kernels<V64>();

}  // namespace surprisal
