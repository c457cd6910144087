#include "kernel_tiles_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {

const TileKernels kTileKernelsBaseline = {make_tile_rows<V32>(), make_tile_rows<V64>()};

}  // namespace surprisal
