#if defined(__x86_64__)
namespace surprisal {
namespace {
constexpr int kLanes = 8;  // floats of a vector
constexpr int kUnits = 2;
}  // namespace
}  // namespace surprisal

#include "pulse_search_kernel.hpp"

namespace surprisal {
const TileSearch kTileSearchAvx2 = {kTile, tile_floats, search, largest_error, nearest_codes};
}  // namespace surprisal
#endif
