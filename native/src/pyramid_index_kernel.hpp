// Decoding of pyramid indices, written once over a scan and included by one translation unit an instruction set.
//
// A scan S gives above(at, key): how many of at[0], at[-1], at[-2], ... come before the first that is not above `key`
// (there is one: kTableMargin zeros lie below k = 0, and no key is negative).
#pragma once
#include <math.h>

#include "pyramid_index_decode.hpp"

namespace surprisal {
namespace {

// Groups whose chains of dependent steps run beside each other.
constexpr int kBeside = 4;

// Where the decoding of a few groups stands: the index that is left, and the pulses.
template <int kCount>
struct Narrow {
  uint64_t index[kCount];
  int64_t left[kCount];
};

// No entry up to k = K reaches 2^63, so that an index above it is as good as the largest signed number.
static inline int64_t narrow_key(uint64_t index) {
  return static_cast<int64_t>(index > static_cast<uint64_t>(INT64_MAX) ? static_cast<uint64_t>(INT64_MAX) : index);
}

// Coordinates n .. 1 of kCount groups, for rows of the table that are their own keys. y: the place of coordinate n of
// the first group; groups are `length` apart.
template <class S, int kCount>
static inline void finish_narrow(const PyramidTable& table, int64_t n, Narrow<kCount>& at, int16_t* y) {
  const int64_t length = table.length;
  const int64_t stride = table.stride;
  const int64_t* row = table.keys(n);
  for (; n > 1; n--, row -= stride, y++) {
    for (int g = 0; g < kCount; g++) {
      const int64_t* here = row + at.left[g];
      uint64_t index = at.index[g];
      const uint64_t half = static_cast<uint64_t>(here[1]);
      const uint64_t sign = -static_cast<uint64_t>(index >= half);
      index -= half & sign;
      const int64_t magnitude = S::above(here, narrow_key(index));
      at.left[g] -= magnitude;
      at.index[g] = index - static_cast<uint64_t>(here[-magnitude]);
      y[g * length] = static_cast<int16_t>((magnitude ^ static_cast<int64_t>(sign)) - static_cast<int64_t>(sign));
    }
  }
  for (int g = 0; g < kCount; g++) {
    y[g * length] = static_cast<int16_t>(at.index[g] != 0 ? -at.left[g] : at.left[g]);
  }
}

template <class S>
static void decode_narrow(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses) {
  int64_t done = 0;
  for (; done + kBeside <= count; done += kBeside) {
    Narrow<kBeside> at;
    for (int g = 0; g < kBeside; g++) {
      at.index[g] = indices[done + g];
      at.left[g] = table.pulses;
    }
    finish_narrow<S, kBeside>(table, table.length, at, pulses + done * table.length);
  }
  for (; done < count; done++) {
    Narrow<1> at{{indices[done]}, {table.pulses}};
    finish_narrow<S, 1>(table, table.length, at, pulses + done * table.length);
  }
}

// a >= b, a > b of numbers of `limbs` limbs.
static inline bool not_below(const uint64_t* a, const uint64_t* b, int limbs) {
  for (int l = limbs - 1; l >= 0; l--) {
    if (a[l] != b[l]) return a[l] > b[l];
  }
  return true;
}

static inline void subtract(uint64_t* a, const uint64_t* b, uint64_t mask, int limbs) {
  uint64_t borrow = 0;
  for (int l = 0; l < limbs; l++) {
    uint64_t partial;
    const bool first = __builtin_sub_overflow(a[l], b[l] & mask, &partial);
    const bool second = __builtin_sub_overflow(partial, borrow, &a[l]);
    borrow = static_cast<uint64_t>(first | second);
  }
}

// One coordinate of one group whose row of the table takes `limbs` limbs of 2 or more. Gives the magnitude with sign.
template <class S>
static inline int64_t wide_step(const PyramidTable& table, int64_t n, int limbs, uint64_t* index, int64_t& left) {
  const uint64_t* half = table.entry(n, left + 1);
  const bool negative = not_below(index, half, limbs);
  const uint64_t sign = -static_cast<uint64_t>(negative);
  subtract(index, half, sign, limbs);
  const int64_t* keys = table.keys(n) + left;
  const int64_t key = order_key(index, limbs);
  int64_t magnitude = S::above(keys, key);
  // Numbers whose keys agree may still differ further down.
  while (keys[-magnitude] == key && !not_below(index, table.entry(n, left - magnitude), limbs)) magnitude++;
  left -= magnitude;
  subtract(index, table.entry(n, left), ~uint64_t{0}, limbs);
  return (magnitude ^ static_cast<int64_t>(sign)) - static_cast<int64_t>(sign);
}

// Groups in turn, coordinate by coordinate while indices take several limbs. kLimbs: 2, or 0 for any number.
template <class S, int kLimbs>
static void decode_wide(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses) {
  constexpr int kMostHeld = kLimbs == 0 ? kMostIndexLimbs : kLimbs;
  const int64_t length = table.length;
  const int stored = table.limbs;
  uint64_t index[kBeside][kMostHeld];
  for (int64_t done = 0; done < count; done += kBeside) {
    const int beside = static_cast<int>(count - done < kBeside ? count - done : kBeside);
    int64_t left[kBeside];
    for (int g = 0; g < beside; g++) {
      memcpy(index[g], indices + (done + g) * stored, sizeof(uint64_t) * stored);
      left[g] = table.pulses;
    }
    int16_t* y = pulses + done * length;
    int64_t n = length;
    for (; n > 1 && table.row_limbs[n] > 1; n--, y++) {
      const int limbs = kLimbs == 0 ? table.row_limbs[n] : kLimbs;
      for (int g = 0; g < beside; g++) {
        y[g * length] = static_cast<int16_t>(wide_step<S>(table, n, limbs, index[g], left[g]));
      }
    }
    if (beside == kBeside) {
      Narrow<kBeside> at;
      for (int g = 0; g < kBeside; g++) {
        at.index[g] = index[g][0];
        at.left[g] = left[g];
      }
      finish_narrow<S, kBeside>(table, n, at, y);
    } else {
      for (int g = 0; g < beside; g++) {
        Narrow<1> at{{index[g][0]}, {left[g]}};
        finish_narrow<S, 1>(table, n, at, y + g * length);
      }
    }
  }
}

template <class S>
static void decode_groups(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses) {
  if (table.limbs == 1) {
    decode_narrow<S>(table, indices, count, pulses);
  } else if (table.limbs == 2) {
    decode_wide<S, 2>(table, indices, count, pulses);
  } else {
    decode_wide<S, 0>(table, indices, count, pulses);
  }
}

// kLength: D where it is fixed at compile time, else 0.
template <int kLength>
static inline void scale_fixed(const int16_t* pulses, int64_t count, int length, const double* amplitudes,
                               float* target) {
  const int d = kLength == 0 ? length : kLength;
  constexpr int kTile = 16;
  for (int64_t done = 0; done < count; done += kTile) {
    const int tile = static_cast<int>(count - done < kTile ? count - done : kTile);
    int32_t squares[kTile];
    float factors[kTile];
    for (int g = 0; g < tile; g++) {
      const int16_t* y = pulses + (done + g) * d;
      int32_t sum = 0;
      for (int i = 0; i < d; i++) sum += static_cast<int32_t>(y[i]) * y[i];
      squares[g] = sum;
    }
    for (int g = tile; g < kTile; g++) squares[g] = 1;
    for (int g = 0; g < kTile; g++) {
      const double amplitude = g < tile ? amplitudes[done + g] : 0.0;
      factors[g] = static_cast<float>(amplitude * (1.0 / sqrt(static_cast<double>(squares[g]))));
    }
    for (int g = 0; g < tile; g++) {
      const int16_t* y = pulses + (done + g) * d;
      float* w = target + (done + g) * d;
      for (int i = 0; i < d; i++) w[i] = static_cast<float>(y[i]) * factors[g];
    }
  }
}

static void scale_groups(const int16_t* pulses, int64_t count, int length, const double* amplitudes, float* target) {
  switch (length) {
    case 8:
      return scale_fixed<8>(pulses, count, length, amplitudes, target);
    case 16:
      return scale_fixed<16>(pulses, count, length, amplitudes, target);
    case 32:
      return scale_fixed<32>(pulses, count, length, amplitudes, target);
    default:
      return scale_fixed<0>(pulses, count, length, amplitudes, target);
  }
}

}  // namespace
}  // namespace surprisal
