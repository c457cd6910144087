#if defined(__x86_64__)
#include "panel_operators_loops.hpp"

namespace surprisal {

const PanelLoops<float> kPanelLoopsAvx512F32 = kPanelLoops<float>;
const PanelLoops<double> kPanelLoopsAvx512F64 = kPanelLoops<double>;

}  // namespace surprisal
#endif
