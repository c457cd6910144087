#if defined(__x86_64__)
#include "kernel_tiles_kernel.hpp"
#include "vectors_avx512.hpp"

namespace surprisal {

const TileKernels kTileKernelsAvx512 = {make_tile_rows<V32>(), make_tile_rows<V64>()};

}  // namespace surprisal
#endif
