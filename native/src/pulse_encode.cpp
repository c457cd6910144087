#include "pulse_encode.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "aligned_buffer.hpp"
#include "pyramid_index.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr int kRounds = 3;
constexpr double kLargestHalf = 65504;
constexpr double kSmallestHalf = 6.1e-5;
// Weights that a thread encodes at a time: rows enough to fill tiles, few enough to stay in the first-level cache.
constexpr int64_t kBandWeights = 4096;

bool fits_half(double scale) { return scale == 0 || (scale >= kSmallestHalf && scale <= kLargestHalf); }

// Rounded once to the nearest f16, ties to even, or to f32 where f16 cannot hold it.
float stored_scale(double scale) {
  if (!fits_half(scale)) return static_cast<float>(scale);
  if (scale == 0) return 0;
  const int exponent = std::max(-14, std::ilogb(scale));
  // Leaves the adder no place below the spacing of f16.
  const double shift = 1.5 * 0x1p52 * std::ldexp(1.0, exponent - 10);
  const volatile double shifted = scale + shift;
  return static_cast<float>(shifted - shift);
}

// Thresholds between levels, and the nearest level of a value: the lower one on a threshold.
class Levels {
 public:
  Levels(const float* levels, int64_t count) : levels_(levels), thresholds_(count - 1) {
    for (int64_t j = 0; j + 1 < count; j++) {
      thresholds_[j] = (static_cast<double>(levels[j]) + static_cast<double>(levels[j + 1])) / 2;
    }
  }

  double operator[](int code) const { return levels_[code]; }

  int nearest(double value) const {
    return static_cast<int>(std::lower_bound(thresholds_.begin(), thresholds_.end(), value) - thresholds_.begin());
  }

  // The nearest levels of values[g] / scale.
  void nearest(const double* values, int64_t groups, double scale, uint8_t* codes) const {
    if (thresholds_.size() <= kMostCompared) {
      const int count = static_cast<int>(thresholds_.size());
      tile_search().nearest_codes(values, groups, scale, thresholds_.data(), count, codes);
      return;
    }
    for (int64_t g = 0; g < groups; g++) codes[g] = static_cast<uint8_t>(nearest(values[g] / scale));
  }

 private:
  // Up to here comparing with every threshold is quicker than halving.
  static constexpr size_t kMostCompared = 31;

  const float* levels_;
  std::vector<double> thresholds_;
};

// Working memory of one thread.
struct Band {
  AlignedBuffer<float> tile;
  std::vector<int16_t> pulses;
  std::vector<GroupSums> sums;
  std::vector<double> amplitudes, weights;
  std::vector<uint8_t> codes;
  std::vector<float> factors;
};

// Pulses and sums of `rows` rows from x on.
bool search_band(const float* x, int64_t rows, int64_t columns, const SearchSettings& search, const float* importance,
                 int16_t* pulses, GroupSums* sums, AlignedBuffer<float>& memory) {
  const TileSearch& use = tile_search();
  const int64_t length = search.length;
  const int64_t groups = (columns + length - 1) / length;
  memory.reserve(use.tile_floats(search.length));
  SearchGroup tile[kMostSearchLanes];
  int64_t row = 0, column = 0;
  for (int64_t at = 0; at < rows * groups; at += use.lanes) {
    const int count = static_cast<int>(std::min<int64_t>(use.lanes, rows * groups - at));
    for (int lane = 0; lane < count; lane++) {
      tile[lane] = {x + row * columns + column, importance == nullptr ? nullptr : importance + column,
                    static_cast<int>(std::min(length, columns - column)), pulses + (at + lane) * length,
                    sums + at + lane};
      column += length;
      if (column >= columns) {
        column = 0;
        row++;
      }
    }
    if (!use.search(search, tile, count, memory.data())) return false;
  }
  return true;
}

struct RowGains {
  const double* amplitudes;
  const double* weights;
  int64_t groups;
};

double fit_scale(const RowGains& row, const Levels& levels, const uint8_t* codes) {
  double above = 0, below = 0;
  for (int64_t g = 0; g < row.groups; g++) {
    const double level = levels[codes[g]];
    const double weighted = row.weights[g] * level;
    above += weighted * row.amplitudes[g];
    below += weighted * level;
  }
  return below > 0 ? above / below : 0;
}

void choose_codes(const RowGains& row, const Levels& levels, double scale, uint8_t* codes) {
  if (!(scale > 0)) {
    std::memset(codes, 0, static_cast<size_t>(row.groups));
    return;
  }
  levels.nearest(row.amplitudes, row.groups, scale, codes);
}

// Codes, scale and statistics (but for the largest error) of one row; `factors` [groups] is what pulses decode by.
void encode_gains(const GroupSums* sums, int64_t groups, const EncodeRequest& request, bool leave_zeros,
                  const Levels& levels, Band& band, uint8_t* codes, float* factors, float* scale_out, double* fields) {
  double energy = 0;
  for (int64_t g = 0; g < groups; g++) {
    const GroupSums& own = sums[g];
    energy += own.energy;
    band.amplitudes[g] = 0;
    if (own.energy == 0) {
      band.weights[g] = leave_zeros ? 0 : own.weighted_norm / own.norm;
      continue;
    }
    if (request.keep_norm) {
      band.amplitudes[g] = std::sqrt(own.energy);
    } else if (own.weighted_norm > 0) {
      band.amplitudes[g] = (own.weighted_cross / own.weighted_norm) * std::sqrt(own.norm);
    }
    band.weights[g] = own.weighted_norm / own.norm;
  }
  const RowGains row{band.amplitudes.data(), band.weights.data(), groups};
  double scale = std::sqrt(energy);
  for (int round = 0; round < kRounds; round++) {
    choose_codes(row, levels, scale, codes);
    scale = fit_scale(row, levels, codes);
  }
  const float stored = stored_scale(scale);
  choose_codes(row, levels, stored, codes);
  *scale_out = stored;
  std::fill(fields, fields + kRowFields, 0.0);
  fields[kWeightEnergy] = energy;
  fields[kSingleScale] = fits_half(scale) ? 0 : 1;
  for (int64_t g = 0; g < groups; g++) {
    const GroupSums& own = sums[g];
    const bool zero = own.energy == 0;
    const double factor = zero && leave_zeros ? 0 : stored * levels[codes[g]] * (1 / std::sqrt(own.norm));
    const double decoded = factor * factor * own.stored_norm;
    fields[kSquaredError] += std::max(0.0, own.energy - 2 * (factor * own.cross) + decoded);
    fields[kCrossEnergy] += factor * own.cross;
    fields[kDecodedEnergy] += decoded;
    factors[g] = static_cast<float>(factor);
    if (zero) {
      fields[kZeroGroups]++;
      continue;
    }
    const double shape = own.stored_norm > 0 ? std::max(0.0, own.energy - (own.cross * own.cross) / own.stored_norm)
                                             : own.energy;
    fields[kShapeErrors] += shape / own.energy;
    fields[kShapeSquaredError] += shape;
  }
}

}  // namespace

bool encode_pyramid_rows(const float* x, int64_t rows, int64_t columns, const EncodeRequest& request,
                         const EncodeTarget& target, int threads) {
  const int64_t length = request.search.length;
  const int64_t groups = (columns + length - 1) / length;
  if (rows == 0 || groups == 0) return true;
  const int64_t gain_bytes = (groups * request.gain_bits + 7) / 8;
  const int64_t zero_bytes = (groups + 7) / 8;
  const IndexLayout layout = index_layout(request.search.length, request.search.pulses, request.super_group, groups);
  const Levels levels(request.levels, int64_t{1} << request.gain_bits);
  const TileSearch& use = tile_search();
  const int64_t band_rows = std::max<int64_t>(1, kBandWeights / (groups * length));
  std::atomic<bool> finite{true};
  parallel_for(rows, band_rows, threads, [&](int64_t begin, int64_t end) {
    thread_local Band band;
    band.pulses.resize(static_cast<size_t>(band_rows * groups * length));
    band.sums.resize(static_cast<size_t>(band_rows * groups));
    band.amplitudes.resize(static_cast<size_t>(groups));
    band.weights.resize(static_cast<size_t>(groups));
    band.codes.resize(static_cast<size_t>(groups));
    band.factors.resize(static_cast<size_t>(groups));
    for (int64_t first = begin; first < end && finite.load(std::memory_order_relaxed); first += band_rows) {
      const int64_t count = std::min(band_rows, end - first);
      if (!search_band(x + first * columns, count, columns, request.search, request.importance, band.pulses.data(),
                       band.sums.data(), band.tile)) {
        finite = false;
        return;
      }
      for (int64_t r = 0; r < count; r++) {
        const int64_t row = first + r;
        const int16_t* pulses = band.pulses.data() + r * groups * length;
        const GroupSums* sums = band.sums.data() + r * groups;
        double* fields = target.statistics + row * kRowFields;
        encode_gains(sums, groups, request, target.zeros != nullptr, levels, band, band.codes.data(),
                     band.factors.data(), target.scales + row, fields);
        fields[kLargestError] =
            use.largest_error(x + row * columns, columns, pulses, request.search.length, band.factors.data());
        RowIndexWriter writer(layout, target.index + row * layout.row_bytes);
        for (int64_t g = 0; g < groups; g++) writer.push(pulses + g * length);
        writer.finish();
        if (request.gain_bits > 0) {
          BitWriter gains(target.gain + row * gain_bytes);
          for (int64_t g = 0; g < groups; g++) gains.put(band.codes[g], request.gain_bits);
          gains.finish();
        }
        if (target.zeros != nullptr) {
          BitWriter zeros(target.zeros + row * zero_bytes);
          for (int64_t g = 0; g < groups; g++) zeros.put(sums[g].energy == 0, 1);
          zeros.finish();
        }
      }
    }
  });
  return finite;
}

bool encode_pyramid_block(const float* x, int64_t rows, int64_t width, const SearchSettings& search,
                          const float* importance, const float* level_values, int64_t level_count, const float* scales,
                          int16_t* pulses, uint8_t* codes, float* decoded, int threads) {
  const int64_t length = search.length;
  const int64_t groups = (width + length - 1) / length;
  if (rows == 0 || groups == 0) return true;
  const Levels levels(level_values, level_count);
  std::atomic<bool> finite{true};
  const int64_t band_rows = std::max<int64_t>(1, kBandWeights / (groups * length));
  parallel_for(rows, band_rows, threads, [&](int64_t begin, int64_t end) {
    thread_local Band band;
    band.sums.resize(static_cast<size_t>(band_rows * groups));
    for (int64_t first = begin; first < end; first += band_rows) {
      const int64_t count = std::min(band_rows, end - first);
      if (!search_band(x + first * width, count, width, search, importance, pulses + first * groups * length,
                       band.sums.data(), band.tile)) {
        finite = false;
        return;
      }
      for (int64_t at = 0; at < count * groups; at++) {
        const GroupSums& own = band.sums[at];
        const int64_t row = first + at / groups;
        const int64_t column = at % groups * length;
        const double norm = std::sqrt(own.norm);
        const double amplitude = own.weighted_norm > 0 ? (own.weighted_cross / own.weighted_norm) * norm : 0;
        const int code = scales[row] > 0 ? levels.nearest(amplitude / scales[row]) : 0;
        codes[first * groups + at] = static_cast<uint8_t>(code);
        const float factor = static_cast<float>(static_cast<double>(scales[row]) * levels[code] * (1 / norm));
        const int16_t* y = pulses + (first * groups + at) * length;
        float* to = decoded + row * width + column;
        for (int64_t j = 0; j < std::min(length, width - column); j++) to[j] = factor * static_cast<float>(y[j]);
      }
    }
  });
  return finite;
}

}  // namespace surprisal
