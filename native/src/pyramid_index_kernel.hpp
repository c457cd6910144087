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
constexpr int kBeside = 8;

// Where the decoding of a few groups stands: the index that is left, and the entry of the row at the pulses left.
template <int kCount>
struct Narrow {
  uint64_t index[kCount];
  const int64_t* at[kCount];
};

// Coordinates n .. 1 of kCount groups, for rows of the table that are their own keys. y: the place of coordinate n of
// the first group; groups are `length` apart. kFull: an index may be 2^63 or more. No entry that it is compared with
// is, so it is then as good as the largest signed number.
template <class S, int kCount, bool kFull>
static inline void finish_narrow(const PyramidTable& table, int64_t n, Narrow<kCount>& state, int16_t* y) {
  const int64_t length = table.length;
  const int64_t stride = table.stride;
  for (; n > 1; n--, y++) {
#pragma GCC unroll 8
    for (int g = 0; g < kCount; g++) {
      const int64_t* at = state.at[g];
      uint64_t index = state.index[g];
      uint64_t mirrored;
      const bool is_positive = __builtin_sub_overflow(index, static_cast<uint64_t>(at[1]), &mirrored);
      const int64_t positive = -static_cast<int64_t>(is_positive);
      index = is_positive ? index : mirrored;
      const bool beyond = kFull && index > static_cast<uint64_t>(INT64_MAX);
      const int64_t down = -S::above(at, beyond ? INT64_MAX : static_cast<int64_t>(index));
      at += down;
      state.index[g] = index - static_cast<uint64_t>(*at);
      state.at[g] = at - stride;
      y[g * length] = static_cast<int16_t>((down ^ positive) - positive);
    }
  }
  const int64_t* none = table.keys(1);
  for (int g = 0; g < kCount; g++) {
    const int64_t left = state.at[g] - none;
    y[g * length] = static_cast<int16_t>(state.index[g] != 0 ? -left : left);
  }
}

template <class S, bool kFull>
static void decode_narrow(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses) {
  const int64_t* first = table.keys(table.length) + table.pulses;
  int64_t done = 0;
  for (; done + kBeside <= count; done += kBeside) {
    Narrow<kBeside> state;
    for (int g = 0; g < kBeside; g++) {
      state.index[g] = indices[done + g];
      state.at[g] = first;
    }
    finish_narrow<S, kBeside, kFull>(table, table.length, state, pulses + done * table.length);
  }
  for (; done < count; done++) {
    Narrow<1> state{{indices[done]}, {first}};
    finish_narrow<S, 1, kFull>(table, table.length, state, pulses + done * table.length);
  }
}

// Several limbs, as a big number in memory: limbs 0 .. limbs - 1 of the index may be other than zero.
struct LimbIndex {
  uint64_t limb[kMostIndexLimbs];

  void load(const uint64_t* from, int limbs) { memcpy(limb, from, sizeof(uint64_t) * limbs); }
  int64_t key(int limbs) const { return order_key(limb, limbs); }
  bool not_below(const uint64_t* other, int limbs) const {
    for (int l = limbs - 1; l >= 0; l--) {
      if (limb[l] != other[l]) return limb[l] > other[l];
    }
    return true;
  }
  // Less `other` where mask is all ones.
  void subtract(const uint64_t* other, uint64_t mask, int limbs) {
    uint64_t borrow = 0;
    for (int l = 0; l < limbs; l++) {
      uint64_t partial;
      const bool first = __builtin_sub_overflow(limb[l], other[l] & mask, &partial);
      const bool second = __builtin_sub_overflow(partial, borrow, &limb[l]);
      borrow = static_cast<uint64_t>(first | second);
    }
  }
  uint64_t low() const { return limb[0]; }
};

// Two limbs, in registers.
struct DoubleIndex {
  unsigned __int128 value;

  static unsigned __int128 of(const uint64_t* from) {
    return (static_cast<unsigned __int128>(from[1]) << 64) | from[0];
  }
  void load(const uint64_t* from, int) { value = of(from); }
  int64_t key(int) const {
    const uint64_t high = static_cast<uint64_t>(value >> 64);
    const uint64_t low = static_cast<uint64_t>(value);
    if (high == 0) return order_key(&low, 1);
    const int empty = __builtin_clzll(high);
    const uint64_t leading = static_cast<uint64_t>((value << empty) >> 64);
    return (int64_t{128 - empty} << 52) | static_cast<int64_t>((leading << 1) >> 12);
  }
  bool not_below(const uint64_t* other, int) const { return value >= of(other); }
  void subtract(const uint64_t* other, uint64_t mask, int) {
    value -= (static_cast<unsigned __int128>(other[1] & mask) << 64) | (other[0] & mask);
  }
  uint64_t low() const { return static_cast<uint64_t>(value); }
};

// One coordinate of one group whose row of the table takes `limbs` limbs of 2 or more: `entries` [., stored] and `keys`
// of the row. Numbers whose keys agree may still differ further down.
template <class S, class Index>
static inline int64_t wide_step(const uint64_t* entries, int64_t stored, const int64_t* keys, int limbs, Index& index,
                                int64_t& left) {
  const uint64_t* half = entries + (left + 1) * stored;
  const int64_t half_key = keys[left + 1];
  const int64_t own_key = index.key(limbs);
  // Signs are coins: branches on them alone would often be foretold wrongly.
  bool negative = own_key > half_key;
  if (__builtin_expect(own_key == half_key, 0)) negative = index.not_below(half, limbs);
  const int64_t sign = -static_cast<int64_t>(negative);
  index.subtract(half, static_cast<uint64_t>(sign), limbs);
  const int64_t key = index.key(limbs);
  int64_t after = left - S::above(keys + left, key);
  while (keys[after] == key && !index.not_below(entries + after * stored, limbs)) after--;
  const int64_t magnitude = left - after;
  left = after;
  index.subtract(entries + after * stored, ~uint64_t{0}, limbs);
  return (magnitude ^ sign) - sign;
}

// Groups beside each other, coordinate by coordinate while indices take several limbs.
template <class S, class Index>
static void decode_wide(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses) {
  const int64_t length = table.length;
  const int64_t stored = table.limbs;
  Index index[kBeside];
  for (int64_t done = 0; done < count; done += kBeside) {
    const int beside = static_cast<int>(count - done < kBeside ? count - done : kBeside);
    int64_t left[kBeside];
    for (int g = 0; g < beside; g++) {
      index[g].load(indices + (done + g) * stored, table.limbs);
      left[g] = table.pulses;
    }
    int16_t* y = pulses + done * length;
    int64_t n = length;
    for (; table.row_limbs[n] > 1; n--, y++) {
      const int limbs = table.row_limbs[n];
      const uint64_t* entries = table.entry(n, 0);
      const int64_t* keys = table.keys(n);
      for (int g = 0; g < beside; g++) {
        y[g * length] = static_cast<int16_t>(wide_step<S>(entries, stored, keys, limbs, index[g], left[g]));
      }
    }
    const int64_t* row = table.keys(n);
    if (beside == kBeside) {
      Narrow<kBeside> state;
      for (int g = 0; g < kBeside; g++) {
        state.index[g] = index[g].low();
        state.at[g] = row + left[g];
      }
      finish_narrow<S, kBeside, true>(table, n, state, y);
    } else {
      for (int g = 0; g < beside; g++) {
        Narrow<1> state{{index[g].low()}, {row + left[g]}};
        finish_narrow<S, 1, true>(table, n, state, y + g * length);
      }
    }
  }
}

template <class S>
static void decode_groups(const PyramidTable& table, const uint64_t* indices, int64_t count, int16_t* pulses) {
  if (table.bits < 64) {
    decode_narrow<S, false>(table, indices, count, pulses);
  } else if (table.limbs == 1) {
    decode_narrow<S, true>(table, indices, count, pulses);
  } else if (table.limbs == 2) {
    decode_wide<S, DoubleIndex>(table, indices, count, pulses);
  } else {
    decode_wide<S, LimbIndex>(table, indices, count, pulses);
  }
}

// kLength: D where it is fixed at compile time, else 0.
template <int kLength>
static inline void scale_fixed(const PyramidTable& table, const int16_t* pulses, int64_t count,
                               const double* amplitudes, float* target) {
  const int length = kLength == 0 ? table.length : kLength;
  const double* inverse_norms = table.inverse_norms.data();
  const int32_t known = static_cast<int32_t>(table.inverse_norms.size());
  for (int64_t g = 0; g < count; g++, pulses += length, target += length) {
    int32_t squares = 0;
    for (int i = 0; i < length; i++) squares += static_cast<int32_t>(pulses[i]) * pulses[i];
    const double inverse = squares < known ? inverse_norms[squares] : 1.0 / sqrt(static_cast<double>(squares));
    const float factor = static_cast<float>(amplitudes[g] * inverse);
    for (int i = 0; i < length; i++) target[i] = static_cast<float>(pulses[i]) * factor;
  }
}

static void scale_groups(const PyramidTable& table, const int16_t* pulses, int64_t count, const double* amplitudes,
                         float* target) {
  switch (table.length) {
    case 4:
      return scale_fixed<4>(table, pulses, count, amplitudes, target);
    case 8:
      return scale_fixed<8>(table, pulses, count, amplitudes, target);
    case 16:
      return scale_fixed<16>(table, pulses, count, amplitudes, target);
    case 32:
      return scale_fixed<32>(table, pulses, count, amplitudes, target);
    default:
      return scale_fixed<0>(table, pulses, count, amplitudes, target);
  }
}

}  // namespace
}  // namespace surprisal
