#include "pulse_search.hpp"

#include <algorithm>
#include <atomic>

#include "aligned_buffer.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {

const TileSearch& tile_search() {
#if defined(__x86_64__)
  switch (simd_level()) {
    case Simd::Avx512:
      return kTileSearchAvx512;
    case Simd::Avx2:
      return kTileSearchAvx2;
    default:
      break;
  }
#endif
  return kTileSearchBaseline;
}

bool search_pulses(const float* x, int64_t rows, int64_t columns, const float* importance,
                   const SearchSettings& settings, int16_t* pulses, int threads) {
  const TileSearch& use = tile_search();
  const int64_t groups = (columns + settings.length - 1) / settings.length;
  const int64_t tiles = (rows * groups + use.lanes - 1) / use.lanes;
  std::atomic<bool> finite{true};
  parallel_for(tiles, std::max<int64_t>(1, 4096 / (static_cast<int64_t>(use.lanes) * settings.length)), threads,
               [&](int64_t begin, int64_t end) {
    thread_local AlignedBuffer<float> memory;
    memory.reserve(use.tile_floats(settings.length));
    SearchGroup tile[kMostSearchLanes];
    for (int64_t at = begin * use.lanes; at < std::min(end * use.lanes, rows * groups); at += use.lanes) {
      const int count = static_cast<int>(std::min<int64_t>(use.lanes, rows * groups - at));
      for (int lane = 0; lane < count; lane++) {
        const int64_t row = (at + lane) / groups;
        const int64_t column = (at + lane) % groups * settings.length;
        tile[lane] = {x + row * columns + column, importance == nullptr ? nullptr : importance + column,
                      static_cast<int>(std::min<int64_t>(settings.length, columns - column)),
                      pulses + (at + lane) * settings.length, nullptr};
      }
      if (!use.search(settings, tile, count, memory.data())) finite = false;
    }
  });
  return finite;
}

}  // namespace surprisal
