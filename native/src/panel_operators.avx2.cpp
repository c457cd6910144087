#if defined(__x86_64__)
#include "panel_operators_loops.hpp"

namespace surprisal {

const PanelLoops<float> kPanelLoopsAvx2F32 = kPanelLoops<float>;
const PanelLoops<double> kPanelLoopsAvx2F64 = kPanelLoops<double>;

}  // namespace surprisal
#endif
