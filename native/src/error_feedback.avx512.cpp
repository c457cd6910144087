#if defined(__x86_64__)
#include <cstdint>

namespace surprisal {
namespace {
constexpr int kWidth = 16;
}
}  // namespace surprisal

#include "error_feedback_lanes.hpp"

namespace surprisal {
const FeedbackLanes kFeedbackLanesAvx512 = {kLanes, scratch_floats, run_rows};
}  // namespace surprisal
#endif
