#include "loss_rows.hpp"

#include <algorithm>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {

const LossRowKernels& loss_row_kernels() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kLossRowsAvx512;
    case Simd::Avx2:
      return kLossRowsAvx2;
    default:
      break;
  }
#endif
  return kLossRowsBaseline;
}

namespace {

// Rows a range: enough that its scratch memory is paid for, few enough that threads end together.
int64_t grain_of(int64_t rows, int threads) { return std::max<int64_t>(1, rows / (8 * std::max(1, threads))); }

// Calls body(row, scratch) for the rows that count; the others have loss 0.
template <class Body>
void each_row(int64_t rows, int64_t classes, const int32_t* labels, double* losses, int threads, Body&& body) {
  parallel_for(rows, grain_of(rows, threads), threads, [&](int64_t begin, int64_t end) {
    std::vector<double> scratch(static_cast<size_t>(kLossScratchRows * loss_padded(classes)));
    for (int64_t row = begin; row < end; row++) {
      losses[row] = labels != nullptr && labels[row] < 0 ? 0 : body(row, scratch.data());
    }
  });
}

}  // namespace

template <class T>
void loss_rows(const LossBatch<T>& batch, int threads) {
  const LossRowKernels& kernels = loss_row_kernels();
  const int64_t classes = batch.row.classes;
  each_row(batch.rows, classes, batch.labels, batch.losses, threads, [&](int64_t at, double* scratch) {
    LossRow<T> row = batch.row;
    row.student += at * classes;
    if (row.teacher != nullptr) row.teacher += at * classes;
    if (row.gradient != nullptr) row.gradient += at * classes;
    row.label = batch.labels == nullptr ? 0 : batch.labels[at];
    return kernels.of(row, scratch);
  });
}

template <class T>
void sparse_rows(const SparseBatch<T>& batch, int threads) {
  const LossRowKernels& kernels = loss_row_kernels();
  const int64_t classes = batch.row.classes;
  each_row(batch.rows, classes, batch.labels, batch.losses, threads, [&](int64_t at, double* scratch) {
    SparseRow<T> row = batch.row;
    row.student += at * classes;
    if (row.gradient != nullptr) row.gradient += at * classes;
    row.ids += at * batch.k;
    row.log_probs += at * batch.k;
    row.listed = 0;
    while (row.listed < batch.k && row.ids[row.listed] >= 0) row.listed++;
    row.leftover = batch.grouped ? batch.leftovers[at] : 0;
    return kernels.of(row, scratch);
  });
}

template void loss_rows<float>(const LossBatch<float>&, int);
template void loss_rows<double>(const LossBatch<double>&, int);
template void sparse_rows<float>(const SparseBatch<float>&, int);
template void sparse_rows<double>(const SparseBatch<double>&, int);

}  // namespace surprisal
