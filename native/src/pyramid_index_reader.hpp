// Reads packed indices: words out of bits, and the digits of words in mixed radix.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pyramid_index.hpp"

namespace surprisal {

// How far beyond its own bytes a word may be read.
constexpr int64_t kReadMargin = 16;

// Up to 64 bits from bit `at` on; reads 9 bytes.
inline uint64_t read_bits(const uint8_t* bytes, int64_t at, int bits) {
  const uint8_t* first = bytes + (at >> 3);
  const int shift = static_cast<int>(at & 7);
  uint64_t low;
  std::memcpy(&low, first, 8);
  const uint64_t high = (static_cast<uint64_t>(first[8]) << 1) << (63 - shift);
  const uint64_t value = (low >> shift) | high;
  return bits == 64 ? value : value & ((uint64_t{1} << bits) - 1);
}

inline bool below(const uint64_t* a, const uint64_t* b, int limbs) {
  for (int l = limbs - 1; l >= 0; l--) {
    if (a[l] != b[l]) return a[l] < b[l];
  }
  return false;
}

// (high 2^64 + low) / divisor and the remainder, where high < divisor.
inline uint64_t divide_two(uint64_t high, uint64_t low, uint64_t divisor, uint64_t& remainder) {
#if defined(__x86_64__)
  // The compilers call a library function for 128 bits, once more for the remainder.
  uint64_t quotient;
  __asm__("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(divisor) : "cc");
  return quotient;
#else
  const unsigned __int128 value = (static_cast<unsigned __int128>(high) << 64) | low;
  const uint64_t quotient = static_cast<uint64_t>(value / divisor);
  remainder = low - quotient * divisor;
  return quotient;
#endif
}

// Divides a word by a number of one limb in place, and gives the remainder.
inline uint64_t divide_by_limb(uint64_t* word, int limbs, uint64_t divisor) {
  uint64_t rest = 0;
  for (int l = limbs - 1; l >= 0; l--) word[l] = divide_two(rest, word[l], divisor, rest);
  return rest;
}

// Divisor of several limbs, shifted until its highest bit is set (Knuth, TAOCP 2, 4.3.1, algorithm D).
struct Divisor {
  std::vector<uint64_t> shifted;
  int shift = 0;

  explicit Divisor(const std::vector<uint64_t>& number) : shifted(number) {
    while (shifted.size() > 1 && shifted.back() == 0) shifted.pop_back();
    shift = __builtin_clzll(shifted.back());
    if (shift == 0) return;
    for (size_t l = shifted.size(); l-- > 0;) {
      shifted[l] = (shifted[l] << shift) | (l > 0 ? shifted[l - 1] >> (64 - shift) : 0);
    }
  }

  // Divides word [limbs] in place; remainder [shifted.size()]. `scratch` holds limbs + 1.
  void divide(uint64_t* word, int limbs, uint64_t* remainder, uint64_t* scratch) const {
    const int n = static_cast<int>(shifted.size());
    scratch[limbs] = shift == 0 ? 0 : word[limbs - 1] >> (64 - shift);
    for (int l = limbs - 1; l >= 0; l--) {
      scratch[l] = (word[l] << shift) | (shift > 0 && l > 0 ? word[l - 1] >> (64 - shift) : 0);
    }
    for (int j = limbs; j >= 0; j--) {
      if (j < limbs) word[j] = 0;
      if (j > limbs - n) continue;
      word[j] = quotient_limb(scratch + j, n);
    }
    for (int l = 0; l < n; l++) {
      remainder[l] = (scratch[l] >> shift) | (shift > 0 ? scratch[l + 1] << (64 - shift) : 0);
    }
  }

 private:
  // One limb of the quotient of part [n + 1], which becomes the rest.
  uint64_t quotient_limb(uint64_t* part, int n) const {
    const uint64_t top = shifted[n - 1];
    // The digit by the two highest limbs: right or one too large once the third is seen, at most two too large before.
    unsigned __int128 guess = UINT64_MAX;
    unsigned __int128 rest = static_cast<unsigned __int128>(part[n - 1]) + top;
    if (part[n] < top) {
      uint64_t remainder;
      guess = divide_two(part[n], part[n - 1], top, remainder);
      rest = remainder;
    }
    while (rest >> 64 == 0 && guess * shifted[n - 2] > ((rest << 64) | part[n - 2])) {
      guess--;
      rest += top;
    }
    uint64_t digit = static_cast<uint64_t>(guess);
    unsigned __int128 carry = 0;
    uint64_t borrow = 0;
    for (int l = 0; l <= n; l++) {
      if (l < n) carry += static_cast<unsigned __int128>(digit) * shifted[l];
      const uint64_t product = static_cast<uint64_t>(carry);
      carry >>= 64;
      uint64_t partial;
      const bool first = __builtin_sub_overflow(part[l], product, &partial);
      const bool second = __builtin_sub_overflow(partial, borrow, &part[l]);
      borrow = static_cast<uint64_t>(first | second);
    }
    if (borrow == 0) return digit;
    digit--;
    carry = 0;
    for (int l = 0; l <= n; l++) {
      carry += static_cast<unsigned __int128>(part[l]) + (l < n ? shifted[l] : 0);
      part[l] = static_cast<uint64_t>(carry);
      carry >>= 64;
    }
    return digit;
  }
};

// Reads the indices of rows, some words at a time.
class IndexReader {
 public:
  explicit IndexReader(const IndexLayout& layout)
      : layout_(layout), table_(*layout.table), divisor_(layout.table->count), word_(layout.word_limbs + 1),
        scratch_(layout.word_limbs + 2) {}

  // Begins a row of layout.row_bytes bytes, with `readable` bytes from its first on.
  void begin(const uint8_t* row, int64_t readable) {
    row_ = row;
    bit_ = 0;
    group_ = 0;
    if (readable >= layout_.row_bytes + kReadMargin) return;
    copy_.assign(layout_.row_bytes + kReadMargin, 0);
    std::memcpy(copy_.data(), row, layout_.row_bytes);
    row_ = copy_.data();
  }

  // The next indices [groups, limbs], `groups` a multiple of the super-group except at the row's end. Gives the place
  // of the first that is not below N, or -1.
  int64_t next(int64_t groups, uint64_t* indices) {
    const int64_t bad = layout_.super_group == 1 ? next_plain(groups, indices) : next_mixed(groups, indices);
    group_ += groups;
    return bad;
  }

 private:
  int64_t next_plain(int64_t groups, uint64_t* indices) {
    const int bits = table_.bits;
    if (table_.limbs > 1) {
      for (int64_t g = 0; g < groups; g++) read_word(bits, indices + g * table_.limbs, table_.limbs);
      return first_outside(groups, indices);
    }
    const uint64_t count = table_.count[0];
    uint64_t outside = 0;
    for (int64_t g = 0; g < groups; g++, bit_ += bits) {
      indices[g] = read_bits(row_, bit_, bits);
      outside |= static_cast<uint64_t>(indices[g] >= count);
    }
    return outside == 0 ? -1 : first_outside(groups, indices);
  }

  int64_t next_mixed(int64_t groups, uint64_t* indices) {
    const int limbs = table_.limbs;
    const int words = layout_.word_limbs;
    bool outside = false;
    int64_t bad = -1;
    for (int64_t first = 0; first < groups && !outside; first += layout_.super_group) {
      const int64_t rest = layout_.groups - group_ - first;
      const int64_t inside = rest < layout_.super_group ? rest : layout_.super_group;
      const int bits = inside < layout_.super_group ? layout_.rest_bits : layout_.word_bits;
      int active = read_word(bits, word_.data(), words);
      for (int64_t j = 0; j < inside; j++) {
        uint64_t* index = indices + (first + j) * limbs;
        while (active > 1 && word_[active - 1] == 0) active--;
        if (j == inside - 1) {
          // What is left is the last index; it may be too large, by whole limbs even.
          for (int l = limbs; l < active; l++) outside |= word_[l] != 0;
          for (int l = 0; l < limbs; l++) index[l] = l < active ? word_[l] : 0;
          outside |= !below(index, table_.count.data(), limbs);
          if (outside) bad = first + j;
        } else if (limbs == 1) {
          index[0] = divide_by_limb(word_.data(), active, table_.count[0]);
        } else {
          for (int l = active; l < limbs; l++) word_[l] = 0;
          active = std::max(active, limbs);
          divisor_.divide(word_.data(), active, index, scratch_.data());
          for (int l = static_cast<int>(divisor_.shifted.size()); l < limbs; l++) index[l] = 0;
        }
      }
    }
    return bad;
  }

  // The next word; gives how many limbs its bits take, and fills up to `limbs` with zeros.
  int read_word(int bits, uint64_t* word, int limbs) {
    int used = 0;
    for (int done = 0; done < bits; done += 64, used++) {
      word[used] = read_bits(row_, bit_ + done, std::min(64, bits - done));
    }
    for (int l = used; l < limbs; l++) word[l] = 0;
    bit_ += bits;
    return std::max(used, 1);
  }

  int64_t first_outside(int64_t groups, const uint64_t* indices) const {
    for (int64_t g = 0; g < groups; g++) {
      if (!below(indices + g * table_.limbs, table_.count.data(), table_.limbs)) return g;
    }
    return -1;
  }

  const IndexLayout& layout_;
  const PyramidTable& table_;
  Divisor divisor_;
  const uint8_t* row_ = nullptr;
  int64_t bit_ = 0;
  int64_t group_ = 0;
  std::vector<uint64_t> word_, scratch_;
  std::vector<uint8_t> copy_;
};

}  // namespace surprisal
