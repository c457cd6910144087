#include "linear_assignment_scans.hpp"

namespace surprisal {
template <>
const AssignmentScans<float> ScansOf<float>::baseline = scans<float>();
template <>
const AssignmentScans<double> ScansOf<double>::baseline = scans<double>();
}  // namespace surprisal
