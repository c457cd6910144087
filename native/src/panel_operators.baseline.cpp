#include "panel_operators_loops.hpp"

namespace surprisal {

const PanelLoops<float> kPanelLoopsBaselineF32 = kPanelLoops<float>;
const PanelLoops<double> kPanelLoopsBaselineF64 = kPanelLoops<double>;

}  // namespace surprisal
