// Pulse search: for groups of weights, points of the pyramid P(D, K) whose direction is nearest. The method, its modes and
// every rounding are those of src/kernels/pulse-search-reference.ts in single precision: the same bytes come out of it,
// of every vector width here, and of any number of threads.
#pragma once
#include <cstdint>

namespace surprisal {

enum class SearchMode : int { Greedy = 0, FixedPoint = 1, Best = 2, Exact = 3 };

struct SearchSettings {
  int length;  // D
  int pulses;  // K
  SearchMode mode;
  // Most pulses of a coordinate where x >= 0 and where x < 0; 0 for no limit.
  int cap;
  int negative_cap;
  bool exchange;  // polish of greedy and fixed point
};

// Sums over the `width` weights of a group that are stored, in double, from the first to the last.
struct GroupSums {
  double energy;           // sum x^2
  double cross;            // sum x y
  double norm;             // sum y^2 over all D coordinates
  double stored_norm;      // sum y^2 over the stored ones
  double weighted_cross;   // sum h x y, = cross without weights
  double weighted_norm;    // sum h y^2 over the stored ones, = stored_norm without weights
};

// One group: x [width], width <= D, what is missing being zeros; h [width] or null for a search without weights.
struct SearchGroup {
  const float* x;
  const float* h;
  int width;
  int16_t* pulses;  // [D], signed
  GroupSums* sums;
};

// Searches `count` groups, at most `lanes`, all with weights or all without. `memory`: tile_floats(D) floats on a cache
// line. False when a weight is not finite; pulses and sums mean nothing then.
struct TileSearch {
  int lanes;
  int64_t (*tile_floats)(int length);
  bool (*search)(const SearchSettings& settings, const SearchGroup* groups, int count, float* memory);
  // Largest |x - factor y|, y [ceil(columns / length), length] and a factor for every group.
  float (*largest_error)(const float* x, int64_t columns, const int16_t* y, int length, const float* factors);
  // How many of `count` thresholds lie below values[g] / scale, for every g.
  void (*nearest_codes)(const double* values, int64_t groups, double scale, const double* thresholds, int count,
                        uint8_t* codes);
};

extern const TileSearch kTileSearchBaseline;
#if defined(__x86_64__)
extern const TileSearch kTileSearchAvx2;
extern const TileSearch kTileSearchAvx512;
#endif

const TileSearch& tile_search();  // that of this processor

constexpr int kMostSearchLanes = 32;

// Pulses [rows, groups, D] of x [rows, columns]; importance [columns] or null. False when a weight is not finite.
bool search_pulses(const float* x, int64_t rows, int64_t columns, const float* importance,
                   const SearchSettings& settings, int16_t* pulses, int threads);

}  // namespace surprisal
