// Indices of points of a pyramid P(D, K) = { y in Z^D : sum |y_i| = K } in the order of libopus (CWRS), and the words
// that hold them: groups of a row in mixed radix, bits packed from the lowest, rows padded to a byte.
//
// U(n, k) is the number of points of P(n, k) whose first coordinate is positive:
// U(n, k) = U(n-1, k) + U(n, k-1) + U(n-1, k-1), U(0, 0) = 1, U(n, 0) = U(0, k) = 0, and N(n, k) = U(n, k) + U(n, k+1).
//
// To index inside a kernel of one's own: `index_layout` once a call, one `RowIndexWriter` a row, `push` every group in
// order, `finish`.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace surprisal {

// Entries below k = 0 that are zero, so that a search may look at whole windows.
constexpr int64_t kTableMargin = 32;

// U(n, k) for n <= D, k <= K + 1, as numbers of `limbs` words of 64 bits, the lowest first.
struct PyramidTable {
  int length;      // D
  int pulses;      // K
  int limbs;       // words that hold N
  int bits;        // bit length of N - 1
  int64_t stride;  // entries from one n to the next
  std::vector<uint64_t> count;      // N, [limbs]
  std::vector<int> row_limbs;       // words that hold N(n, K), [D + 1]
  std::vector<uint64_t> entries;    // [D + 1, stride, limbs]
  std::vector<int64_t> order_keys;  // [D + 1, stride]; empty where limbs = 1: there the entries are their own keys
  std::vector<double> inverse_norms;  // 1 / sqrt(s) for sums of squares s, as far as they are common

  const uint64_t* entry(int64_t n, int64_t k) const { return entries.data() + (n * stride + kTableMargin + k) * limbs; }
  // Keys ascend with U, see order_key.
  const int64_t* keys(int64_t n) const {
    const int64_t* all = limbs == 1 ? reinterpret_cast<const int64_t*>(entries.data()) : order_keys.data();
    return all + n * stride + kTableMargin;
  }
};

// The table of P(length, pulses), length and pulses >= 1; the last few are kept. Safe to call from several threads.
std::shared_ptr<const PyramidTable> pyramid_table(int length, int pulses);

// The exponent of a big number (its bit length) above 52 bits of its mantissa, cut off: grows with the number, and is
// the same for numbers that agree in 53 bits.
inline int64_t order_key(const uint64_t* number, int limbs) {
  int top = limbs - 1;
  while (top > 0 && number[top] == 0) top--;
  if (number[top] == 0) return 0;
  const int empty = __builtin_clzll(number[top]);
  uint64_t leading = number[top] << empty;
  if (empty > 0 && top > 0) leading |= number[top - 1] >> (64 - empty);
  const int64_t length = 64 * (top + 1) - empty;
  return (length << 52) | static_cast<int64_t>((leading << 1) >> 12);
}

// Whether the absolute values of y [length] sum to `pulses`.
template <class Pulse>
inline bool has_pulses(const Pulse* y, int length, int pulses) {
  int64_t sum = 0;
  for (int i = 0; i < length; i++) sum += y[i] < 0 ? -static_cast<int64_t>(y[i]) : static_cast<int64_t>(y[i]);
  return sum == pulses;
}

// Index of y [D], a point of the table's pyramid (see has_pulses), where limbs = 1.
template <class Pulse>
inline uint64_t encode_group(const PyramidTable& table, const Pulse* y) {
  const uint64_t* row = table.entry(table.length, 0);
  uint64_t index = 0;
  int64_t left = table.pulses;
  for (int i = 0; i < table.length; i++, row -= table.stride) {
    const int64_t value = y[i];
    const int64_t sign = value >> 63;
    const uint64_t before = row[left + 1] & static_cast<uint64_t>(sign);
    left -= (value ^ sign) - sign;
    index += row[left] + before;
  }
  return index;
}

// The same for any number of limbs: index [limbs]. From the last coordinate on, so that sums grow with their limbs.
template <class Pulse>
inline void encode_group(const PyramidTable& table, const Pulse* y, uint64_t* index) {
  if (table.limbs == 1) {
    index[0] = encode_group(table, y);
    return;
  }
  std::memset(index, 0, sizeof(uint64_t) * table.limbs);
  int64_t left = 0;
  for (int n = 1; n <= table.length; n++) {
    const int64_t value = y[table.length - n];
    const uint64_t sign = static_cast<uint64_t>(value >> 63);
    const int64_t here = left + (value < 0 ? -value : value);
    const uint64_t* after = table.entry(n, left);
    const uint64_t* before = table.entry(n, here + 1);
    unsigned __int128 carry = 0;
    for (int l = 0; l < table.row_limbs[n]; l++) {
      carry += static_cast<unsigned __int128>(index[l]) + after[l] + (before[l] & sign);
      index[l] = static_cast<uint64_t>(carry);
      carry >>= 64;
    }
    left = here;
  }
}

// Bits into bytes, the lowest first.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* at) : at_(at) {}

  // 0 <= bits <= 64, value < 2^bits.
  void put(uint64_t value, int bits) {
    held_ |= value << count_;
    count_ += bits;
    if (count_ < 64) return;
    std::memcpy(at_, &held_, 8);
    at_ += 8;
    count_ -= 64;
    // `count_` of the value's bits are left.
    held_ = count_ == 0 ? 0 : value >> (bits - count_);
  }

  void put(const uint64_t* value, int bits) {
    for (; bits > 64; bits -= 64) put(*value++, 64);
    if (bits > 0) put(*value, bits);
  }

  // The rest, padded with zeros to a byte.
  void finish() {
    for (; count_ > 0; count_ -= 8, held_ >>= 8) *at_++ = static_cast<uint8_t>(held_);
    count_ = 0;
    held_ = 0;
  }

 private:
  uint8_t* at_;
  uint64_t held_ = 0;
  int count_ = 0;
};

// How the indices of a row are stored.
struct IndexLayout {
  std::shared_ptr<const PyramidTable> table;
  int super_group;    // groups of a word
  int64_t groups;     // groups of a row
  int word_bits;      // of a whole super-group
  int rest_bits;      // of the last, shorter word; 0 where there is none
  int word_limbs;
  int64_t row_bytes;
};

IndexLayout index_layout(int length, int pulses, int super_group, int64_t groups);

// word = word * factor + addend, modulo 2^(64 * word_limbs); factor and addend [factor_limbs].
inline void multiply_add(uint64_t* word, int word_limbs, const uint64_t* factor, const uint64_t* addend,
                         int factor_limbs) {
  // Downwards, so that every limb of the word is read before it is replaced.
  for (int i = word_limbs - 1; i >= 0; i--) {
    const uint64_t digit = word[i];
    unsigned __int128 carry = 0;
    word[i] = 0;
    for (int j = 0; i + j < word_limbs && (j < factor_limbs || carry != 0); j++) {
      if (j < factor_limbs) carry += static_cast<unsigned __int128>(digit) * factor[j];
      carry += word[i + j];
      word[i + j] = static_cast<uint64_t>(carry);
      carry >>= 64;
    }
  }
  unsigned __int128 carry = 0;
  for (int j = 0; j < word_limbs && (j < factor_limbs || carry != 0); j++) {
    carry += word[j];
    if (j < factor_limbs) carry += addend[j];
    word[j] = static_cast<uint64_t>(carry);
    carry >>= 64;
  }
}

// Writes the indices of one row, layout.row_bytes bytes from `row` on. Push exactly layout.groups groups.
class RowIndexWriter {
 public:
  RowIndexWriter(const IndexLayout& layout, uint8_t* row)
      : layout_(layout), writer_(row), plain_(layout.super_group == 1 && layout.table->limbs == 1) {
    if (plain_) return;
    indices_.resize(static_cast<size_t>(layout.super_group) * layout.table->limbs);
    word_.resize(layout.word_limbs);
  }

  // y [D], a point of the pyramid.
  template <class Pulse>
  void push(const Pulse* y) {
    const PyramidTable& table = *layout_.table;
    if (plain_) {
      writer_.put(encode_group(table, y), table.bits);
      return;
    }
    encode_group(table, y, indices_.data() + static_cast<size_t>(held_) * table.limbs);
    if (++held_ == layout_.super_group) write_word(layout_.word_bits);
  }

  void finish() {
    if (held_ > 0) write_word(layout_.rest_bits);
    writer_.finish();
  }

 private:
  void write_word(int bits) {
    const PyramidTable& table = *layout_.table;
    std::memset(word_.data(), 0, sizeof(uint64_t) * word_.size());
    for (int j = held_ - 1; j >= 0; j--) {
      multiply_add(word_.data(), layout_.word_limbs, table.count.data(),
                   indices_.data() + static_cast<size_t>(j) * table.limbs, table.limbs);
    }
    writer_.put(word_.data(), bits);
    held_ = 0;
  }

  const IndexLayout& layout_;
  BitWriter writer_;
  bool plain_;
  int held_ = 0;
  std::vector<uint64_t> indices_, word_;
};

// Packs pulses [rows, groups, D] into target [rows, row_bytes]. Gives row * groups + group of the first group whose
// absolute values do not sum to K, or -1.
int64_t pack_pulses(const IndexLayout& layout, const int16_t* pulses, int64_t rows, uint8_t* target, int threads);

// Unpacks index [rows, row_bytes] into target [rows, groups, D]. Gives row * groups + group of the first index that is
// N or more, or -1.
int64_t unpack_pulses(const IndexLayout& layout, const uint8_t* index, int64_t index_bytes, int64_t rows,
                      int16_t* target, int threads);

// Rows [_, columns] as stored; groups = ceil(columns / D).
struct StoredRows {
  const uint8_t* index;
  int64_t index_bytes;
  const uint8_t* gain;  // [_, ceil(groups * gain_bits / 8)]
  const float* scales;
  const float* levels;         // [2^gain_bits]
  const uint8_t* zero_groups;  // [_, ceil(groups / 8)] or null
  int64_t columns;
  int gain_bits;
};

// target [rows, columns]: float(scale * level / ||y||) * y of the rows from first_row on, the factor formed in double.
// Gives the place of the first index that is N or more, as unpack_pulses does, or -1.
int64_t dequantize_pyramid(const IndexLayout& layout, const StoredRows& encoded, int64_t first_row, int64_t rows,
                           float* target, int threads);

}  // namespace surprisal
