// Node-API wrappers of list losses. Arguments were checked by src/kernels/plackett-luce.ts and top-log-probs.ts; what is
// checked again is what would read or write outside a typed array.
#include <node_api.h>

#include "arguments.hpp"
#include "plackett_luce.hpp"

namespace surprisal {
namespace {

constexpr int64_t kListSettings = 9;

bool in_classes(const int32_t* labels, int64_t rows, int64_t classes) {
  for (int64_t r = 0; r < rows; r++) {
    if (labels[r] != kIgnoredLabel && (labels[r] < 0 || labels[r] >= classes)) return false;
  }
  return true;
}

// (student, rows, classes, teacher | null, ids | null, logProbs | null, leftover | null, k, labels | null, settings,
//  gradient | null, figures, contributions | null, threads) -> first row that is refused, or -1
napi_value PlackettLuceRows(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 14);
  int64_t student, teacher, ids, log_probs, leftover, labels, settings, gradient, figures, contributions;
  ListBatch batch;
  batch.student = arguments.floats(0, &student);
  batch.rows = arguments.integer(1);
  batch.classes = arguments.integer(2);
  batch.teacher = arguments.floats(3, &teacher);
  batch.ids = arguments.integers(4, &ids);
  batch.log_probs = arguments.doubles(5, &log_probs);
  batch.leftover = arguments.doubles(6, &leftover);
  batch.k = arguments.integer(7);
  batch.labels = arguments.integers(8, &labels);
  const double* setting = arguments.doubles(9, &settings);
  batch.gradient = arguments.floats(10, &gradient);
  batch.figures = arguments.doubles(11, &figures);
  batch.contributions = arguments.doubles(12, &contributions);
  const int threads = static_cast<int>(arguments.integer(13));
  if (!arguments.ok()) return nullptr;
  if (settings != kListSettings) {
    arguments.fail("a list loss has nine settings");
    return nullptr;
  }
  batch.label_first = setting[0] != 0;
  batch.weights = static_cast<ListWeights>(static_cast<int>(setting[1]));
  batch.temperature = setting[2];
  batch.listed = setting[3] < static_cast<double>(batch.classes) ? static_cast<int64_t>(setting[3]) : batch.classes;
  batch.tail = static_cast<ListTail>(static_cast<int>(setting[4]));
  batch.missing = static_cast<MissingLabel>(static_cast<int>(setting[5]));
  batch.scale = setting[6];
  batch.overwrite = setting[7] != 0;
  batch.ranks = static_cast<int64_t>(setting[8]);
  const int64_t entries = batch.rows * batch.classes;
  const bool stored = batch.teacher == nullptr;
  if (batch.rows < 0 || batch.classes < 1 || batch.listed < 1 || student < entries ||
      (!stored && teacher < entries) || (batch.gradient != nullptr && gradient < entries)) {
    arguments.fail("the rows are longer than their array");
  } else if (stored && (batch.k < 1 || ids < batch.rows * batch.k || log_probs < batch.rows * batch.k ||
                        leftover < batch.rows)) {
    arguments.fail("the lists are longer than their array");
  } else if ((batch.labels == nullptr && batch.label_first) ||
             (batch.labels != nullptr && (labels < batch.rows || !in_classes(batch.labels, batch.rows, batch.classes)))) {
    arguments.fail("the labels do not fit the rows");
  } else if (figures != kListFigures * batch.rows || contributions != batch.rows * batch.ranks) {
    arguments.fail("the figures do not fit the rows");
  }
  return arguments.ok() ? number_value(env, static_cast<double>(plackett_luce_rows(batch, threads))) : nullptr;
}

// (logits, rows, classes, k, temperature, ids, logProbs, leftover, threads) -> first row that is refused, or -1
napi_value TopLogProbs(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 9);
  int64_t logits, ids, log_probs, leftover;
  TopBatch batch;
  batch.logits = arguments.floats(0, &logits);
  batch.rows = arguments.integer(1);
  batch.classes = arguments.integer(2);
  batch.k = arguments.integer(3);
  batch.temperature = arguments.number(4);
  batch.ids = arguments.integers(5, &ids);
  batch.log_probs = arguments.floats(6, &log_probs);
  batch.leftover = arguments.floats(7, &leftover);
  const int threads = static_cast<int>(arguments.integer(8));
  if (!arguments.ok()) return nullptr;
  if (batch.rows < 0 || batch.k < 1 || batch.k > batch.classes || logits < batch.rows * batch.classes ||
      ids < batch.rows * batch.k || log_probs < batch.rows * batch.k || leftover < batch.rows) {
    arguments.fail("the rows are longer than their array");
    return nullptr;
  }
  return number_value(env, static_cast<double>(top_log_probs(batch, threads)));
}

}  // namespace

void register_plackett_luce(napi_env env, napi_value exports) {
  set_function(env, exports, "plackettLuceRows", PlackettLuceRows);
  set_function(env, exports, "topLogProbs", TopLogProbs);
}

}  // namespace surprisal
