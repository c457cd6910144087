// 16-bit floats to and from 32 bits, one at a time.
#pragma once
#include <stdint.h>
#include <string.h>

namespace surprisal {
namespace {

static inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

// Branch-free, so that loops over it vectorise: the exponent is moved by a multiplication, which also normalises
// subnormals; infinity and NaN get the highest exponent.
static inline float float_of_half(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t finite = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;
  return float_of_bits(sign | (magnitude >= 0x0f800000u ? special : finite));
}

static inline float float_of_bfloat(uint16_t bits) { return float_of_bits(static_cast<uint32_t>(bits) << 16); }

}  // namespace
}  // namespace surprisal
