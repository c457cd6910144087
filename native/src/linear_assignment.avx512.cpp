#if defined(__x86_64__)
#include "linear_assignment_scans.hpp"

namespace surprisal {
template <>
const AssignmentScans<float> ScansOf<float>::avx512 = scans<float>();
template <>
const AssignmentScans<double> ScansOf<double>::avx512 = scans<double>();
}  // namespace surprisal
#endif
