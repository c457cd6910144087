// Rows of weights as pyramid codes: search, gains, row scales and packing in one pass over the weights. The method and
// every operation are those of src/kernels/pulse-encode-reference.ts.
#pragma once
#include <cstdint>

#include "pulse_search.hpp"

namespace surprisal {

// Fields of a row's statistics, as ROW_FIELDS in TypeScript.
enum RowField : int {
  kWeightEnergy = 0,
  kSquaredError = 1,
  kCrossEnergy = 2,
  kDecodedEnergy = 3,
  kShapeErrors = 4,
  kShapeSquaredError = 5,
  kLargestError = 6,
  kZeroGroups = 7,
  kSingleScale = 8,
  kRowFields = 9,
};

struct EncodeRequest {
  SearchSettings search;
  const float* importance;  // [columns] or null
  int super_group;
  int gain_bits;
  const float* levels;  // [2^gain_bits], ascending
  bool keep_norm;       // gain policy 'norm'
};

struct EncodeTarget {
  uint8_t* index;       // [rows, bytes of packed indices]
  uint8_t* gain;        // [rows, ceil(groups gain_bits / 8)]
  float* scales;        // [rows]
  uint8_t* zeros;       // [rows, ceil(groups / 8)], one bit a group, or null: groups of zeros are coded like all others
  double* statistics;   // [rows, kRowFields]
};

// Encodes x [rows, columns]. False when a weight is not finite; the target means nothing then.
bool encode_pyramid_rows(const float* x, int64_t rows, int64_t columns, const EncodeRequest& request,
                         const EncodeTarget& target, int threads);

// Codes of x [rows, width] with fixed row scales [rows]: pulses [rows, groups, D], gain codes [rows, groups] and the
// decoded weights [rows, width]. False when a weight is not finite; the codes mean nothing then.
bool encode_pyramid_block(const float* x, int64_t rows, int64_t width, const SearchSettings& search,
                          const float* importance, const float* levels, int64_t level_count, const float* scales,
                          int16_t* pulses, uint8_t* codes, float* decoded, int threads);

}  // namespace surprisal
