#if defined(__x86_64__)
#include <cstdint>

namespace surprisal {
namespace {
constexpr int kWidth = 8;
}
}  // namespace surprisal

#include "error_feedback_lanes.hpp"

namespace surprisal {
const FeedbackLanes kFeedbackLanesAvx2 = {kLanes, scratch_floats, run_rows};
}  // namespace surprisal
#endif
