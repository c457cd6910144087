#include <cstdint>

namespace surprisal {
namespace {
constexpr int kWidth = 4;
}
}  // namespace surprisal

#include "error_feedback_lanes.hpp"

namespace surprisal {
const FeedbackLanes kFeedbackLanesBaseline = {kLanes, scratch_floats, run_rows};
}  // namespace surprisal
