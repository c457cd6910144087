// Node-API wrappers of losses of rows. Arguments were checked by src/kernels/loss-rows.ts; what is checked again is what
// would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "loss_rows.hpp"

namespace surprisal {
namespace {

template <class T>
void dense(Arguments& arguments, napi_typedarray_type type) {
  int64_t student, teacher, labels, losses, gradient;
  LossBatch<T> batch{};
  const int64_t kind = arguments.integer(1);
  batch.rows = arguments.integer(2);
  batch.row.classes = arguments.integer(3);
  batch.row.student = arguments.array<T>(4, type, &student);
  batch.row.teacher = arguments.array<T>(5, type, &teacher);
  batch.labels = arguments.integers(6, &labels);
  batch.losses = arguments.doubles(7, &losses);
  batch.row.gradient = arguments.array<T>(8, type, &gradient);
  batch.row.scale = arguments.number(9);
  batch.row.first = arguments.number(10);
  batch.row.second = arguments.number(11);
  const int threads = static_cast<int>(arguments.integer(12));
  if (!arguments.ok()) return;
  const int64_t size = batch.rows * batch.row.classes;
  if (kind < 0 || kind >= static_cast<int64_t>(LossKind::kCount)) return arguments.fail("unknown loss");
  batch.row.kind = static_cast<LossKind>(kind);
  const bool labelled = batch.row.kind == LossKind::CrossEntropy || batch.row.kind == LossKind::CompSum;
  if (batch.rows < 0 || batch.row.classes < 1 || student < size || losses < batch.rows ||
      (batch.row.gradient != nullptr && gradient < size)) {
    return arguments.fail("the rows are longer than their array");
  }
  if ((labelled && batch.labels == nullptr) || (batch.labels != nullptr && labels < batch.rows)) {
    return arguments.fail("there are fewer labels than rows");
  }
  if (!labelled && teacher < size) return arguments.fail("the teacher has fewer rows");
  if (labelled) {
    for (int64_t row = 0; row < batch.rows; row++) {
      if (batch.labels[row] >= batch.row.classes) return arguments.fail("a label is outside the classes");
    }
  }
  loss_rows(batch, threads);
}

template <class T>
void sparse(Arguments& arguments, napi_typedarray_type type) {
  int64_t student, ids, log_probs, leftovers, labels, losses, gradient;
  SparseBatch<T> batch{};
  batch.rows = arguments.integer(1);
  batch.row.classes = arguments.integer(2);
  batch.row.student = arguments.array<T>(3, type, &student);
  batch.k = arguments.integer(4);
  batch.row.ids = arguments.integers(5, &ids);
  batch.row.log_probs = arguments.doubles(6, &log_probs);
  batch.leftovers = arguments.doubles(7, &leftovers);
  batch.labels = arguments.integers(8, &labels);
  batch.losses = arguments.doubles(9, &losses);
  batch.row.gradient = arguments.array<T>(10, type, &gradient);
  batch.row.scale = arguments.number(11);
  batch.row.temperature = arguments.number(12);
  batch.grouped = arguments.integer(13) != 0;
  const int threads = static_cast<int>(arguments.integer(14));
  if (!arguments.ok()) return;
  const int64_t size = batch.rows * batch.row.classes;
  if (batch.rows < 0 || batch.row.classes < 1 || batch.k < 0 || student < size || losses < batch.rows ||
      (batch.row.gradient != nullptr && gradient < size) || (batch.labels != nullptr && labels < batch.rows)) {
    return arguments.fail("the rows are longer than their array");
  }
  if (ids < batch.rows * batch.k || log_probs < batch.rows * batch.k || leftovers < batch.rows) {
    return arguments.fail("the lists are shorter than the rows");
  }
  for (int64_t i = 0; i < batch.rows * batch.k; i++) {
    if (batch.row.ids[i] >= batch.row.classes) return arguments.fail("a listed class is outside the classes");
  }
  sparse_rows(batch, threads);
}

// (double, kind, rows, classes, student, teacher | null, labels | null, losses, gradient | null, scale, first, second,
// threads)
napi_value LossRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 13);
  if (arguments.integer(0) != 0) {
    dense<double>(arguments, napi_float64_array);
  } else {
    dense<float>(arguments, napi_float32_array);
  }
  return nullptr;
}

// (double, rows, classes, student, k, ids, logProbs, leftover, labels | null, losses, gradient | null, scale,
// temperature, grouped, threads)
napi_value SparseRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 15);
  if (arguments.integer(0) != 0) {
    sparse<double>(arguments, napi_float64_array);
  } else {
    sparse<float>(arguments, napi_float32_array);
  }
  return nullptr;
}

}  // namespace

void register_loss_rows(napi_env env, napi_value exports) {
  set_function(env, exports, "lossRows", LossRows);
  set_function(env, exports, "sparseRows", SparseRows);
}

}  // namespace surprisal
