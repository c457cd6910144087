// Node-API wrapper of the in-block step of error feedback. Arguments were checked by src/kernels/error-feedback.ts; what
// is checked again is what would read or write outside a typed array.
#include <node_api.h>

#include <new>

#include "arguments.hpp"
#include "error_feedback.hpp"

namespace surprisal {
namespace {

// (work, base, decoded, change, coupling, metrics, metricScales, scales, levels, pulses, codes, losses, rows, n, from, to,
//  D, K, cap, negativeCap, inMetric, descent, polishSteps, threads)
napi_value FeedbackStepCall(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info, 24);
  FeedbackStep step;
  int64_t work, base, decoded, change, coupling, metrics, metric_scales, scales, levels, pulses, codes, losses;
  step.work = arguments.floats(0, &work);
  step.base = arguments.floats(1, &base);
  step.decoded = arguments.floats(2, &decoded);
  step.change = arguments.floats(3, &change);
  step.coupling = arguments.floats(4, &coupling);
  step.metrics = arguments.floats(5, &metrics);
  step.metric_scales = arguments.doubles(6, &metric_scales);
  step.scales = arguments.floats(7, &scales);
  step.levels = arguments.floats(8, &levels);
  step.level_count = levels;
  step.pulses = arguments.array<int16_t>(9, napi_int16_array, &pulses);
  step.codes = arguments.bytes(10, &codes);
  step.losses = arguments.doubles(11, &losses);
  step.rows = arguments.integer(12);
  step.n = arguments.integer(13);
  step.from = arguments.integer(14);
  step.to = arguments.integer(15);
  step.columns = arguments.integer(16);
  step.pulse_count = arguments.integer(17);
  step.cap = arguments.integer(18);
  step.negative_cap = arguments.integer(19);
  step.in_metric = arguments.integer(20) != 0;
  step.descent = arguments.integer(21) != 0;
  step.polish_steps = arguments.integer(22);
  const int threads = static_cast<int>(arguments.integer(23));
  if (!arguments.ok()) return nullptr;
  const bool sizes = step.rows >= 0 && step.n > 0 && step.columns > 0 && step.pulse_count > 0 && step.from >= 0 &&
                     step.from < step.to && step.to <= step.n && step.from % step.columns == 0 && levels > 0;
  if (!sizes) {
    arguments.fail("a step of error feedback has impossible sizes");
    return nullptr;
  }
  const int64_t blocks = (step.n + step.columns - 1) / step.columns;
  const int64_t cells = step.rows * step.n;
  if (work < cells || (step.descent ? false : base < cells) || decoded < cells ||
      change < step.rows * (step.to - step.from) || coupling < step.n * step.n ||
      metrics < blocks * step.columns * step.columns || metric_scales < blocks || scales < step.rows ||
      pulses < step.rows * blocks * step.columns || codes < step.rows * blocks || losses < step.rows) {
    arguments.fail("a step of error feedback does not fit its arrays");
    return nullptr;
  }
  try {
    feedback_step(step, threads);
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, nullptr, "a kernel ran out of memory");
  }
  return nullptr;
}

}  // namespace

void register_error_feedback(napi_env env, napi_value exports) {
  set_function(env, exports, "feedbackStep", FeedbackStepCall);
}

}  // namespace surprisal
