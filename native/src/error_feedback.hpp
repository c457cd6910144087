// The in-block step of error feedback over one lazy block of columns: every block of D columns is quantised to a point
// of P(D, K) and a gain, and what it changes moves the columns behind it. Rows are independent; every row sees the same
// operations in single precision, whatever the number of lanes.
#pragma once
#include <cstdint>

namespace surprisal {

struct FeedbackStep {
  // [rows, n] each; only columns [from, to) are touched. Feedback: `work` holds targets, which become errors A - Ŵ, `base`
  // the weights, and `decoded` is written. Descent: `work` holds V = (W - Ŵ) C, `decoded` is read and written, `base` is not used.
  float* work;
  const float* base;
  float* decoded;
  float* change;          // [rows, to - from]: what moves the columns outside
  const float* coupling;  // [n, n]
  const float* metrics;   // [blocks, D, D]
  const double* metric_scales;  // [blocks]: what the metrics were divided by
  const float* scales;          // [rows]
  const float* levels;          // ascending
  int64_t level_count;
  int16_t* pulses;  // [rows, blocks, D]
  uint8_t* codes;   // [rows, blocks]
  double* losses;   // [rows], added to
  int64_t rows, n, from, to;
  int64_t columns;  // D
  int64_t pulse_count;
  int64_t cap, negative_cap;  // most pulses of a coordinate, of either sign
  bool in_metric;  // search and gain in the metric of the block; else Euclidean
  bool descent;
  int64_t polish_steps;
};

void feedback_step(const FeedbackStep& step, int threads);

// Rows [first, first + count) of a step, count at most `lanes`; `scratch` holds `scratch_floats(step)` floats, aligned.
struct FeedbackLanes {
  int64_t lanes;
  int64_t (*scratch_floats)(const FeedbackStep& step);
  void (*rows)(const FeedbackStep& step, int64_t first, int64_t count, float* scratch);
};

extern const FeedbackLanes kFeedbackLanesBaseline;
#if defined(__x86_64__)
extern const FeedbackLanes kFeedbackLanesAvx2;
extern const FeedbackLanes kFeedbackLanesAvx512;
#endif

}  // namespace surprisal
