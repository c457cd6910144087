// f32 to smaller floats, one at a time and branch-free, so that loops over them vectorise.
#pragma once
#include "half.hpp"

namespace surprisal {
namespace {

static inline uint16_t bfloat_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = ((bits >> 16) & 0x8000u) | 0x7fc0u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// A format with a sign, `kMantissa` mantissa bits and exponent bias `kBias`. Magnitude codes above `kLargest` become
// `kOverflow`; NaN becomes `kNan`.
template <int kMantissa, int kBias, uint32_t kLargest, uint32_t kOverflow, uint32_t kNan, int kSignShift>
static inline uint32_t small_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  constexpr int drop = 23 - kMantissa;
  // Adding a number whose last place is the spacing of the subnormals makes the adder round to that spacing.
  constexpr uint32_t magic = static_cast<uint32_t>(127 + 23 - (kBias - 1 + kMantissa)) << 23;
  const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + float_of_bits(magic)) - magic;
  const uint32_t normal =
      (magnitude - (static_cast<uint32_t>(127 - kBias) << 23) + ((1u << (drop - 1)) - 1) + ((magnitude >> drop) & 1u)) >>
      drop;
  constexpr uint32_t smallest_normal = static_cast<uint32_t>(127 - kBias + 1) << 23;
  uint32_t code = magnitude < smallest_normal ? subnormal : normal;
  code = code > kLargest ? kOverflow : code;
  code = magnitude >= 0x7f800000u ? kOverflow : code;
  code = magnitude > 0x7f800000u ? kNan : code;
  return ((bits >> 31) << kSignShift) | code;
}

static inline uint16_t half_of_float(float value) {
  return static_cast<uint16_t>(small_of_float<10, 15, 0x7bff, 0x7c00, 0x7e00, 15>(value));
}
static inline uint8_t e4m3_of_float(float value) {
  return static_cast<uint8_t>(small_of_float<3, 7, 0x7e, 0x7e, 0x7f, 7>(value));
}
static inline uint8_t e5m2_of_float(float value) {
  return static_cast<uint8_t>(small_of_float<2, 15, 0x7b, 0x7c, 0x7f, 7>(value));
}

}  // namespace
}  // namespace surprisal
