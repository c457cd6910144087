// Loops that compilers vectorise, included by one translation unit an instruction set.
#pragma once
#include <string.h>

#include "absmax_rounding.hpp"

namespace surprisal {
namespace {

// Magnitudes of floats ascend with their bits.
static float largest(const float* x, int64_t count) {
  int32_t most = 0;
  for (int64_t i = 0; i < count; i++) {
    int32_t bits;
    memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  float result;
  memcpy(&result, &most, 4);
  return result;
}

static void codes(const float* x, int64_t count, float scale, uint8_t* to) {
  for (int64_t i = 0; i < count; i++) {
    float place = x[i] / scale + 8.5f;
    place = place < 1.0f ? 1.0f : place;
    place = place > 15.0f ? 15.0f : place;
    to[i] = static_cast<uint8_t>(static_cast<int32_t>(place));
  }
}

}  // namespace
}  // namespace surprisal
