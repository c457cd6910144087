// Random masks: functions of key and index of the element alone.
#include <string.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "merge_sparse.hpp"
#include "merge_sparse_blocks.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

constexpr int64_t kGroup = 64;
// Groups that a thread takes at a time.
constexpr int64_t kGroupGrain = 1024;

// Bits of a row's entries that are kept.
void set_bit(uint8_t* mask, int64_t i) { mask[i >> 3] = static_cast<uint8_t>(mask[i >> 3] | 1u << (i & 7)); }

// Random words of elements [first, first + count).
void element_words(const MaskKey& key, int64_t first, int64_t count, uint32_t* target) {
  const auto words = sparse_kernels().words;
  uint32_t group[kGroup];
  for (int64_t begin = first - first % kGroup; begin < first + count; begin += kGroup) {
    words(key, begin / kGroup, group);
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(begin + kGroup, first + count);
    memcpy(target + (from - first), group + (from - begin), sizeof(uint32_t) * static_cast<size_t>(to - from));
  }
}

// Places of a row by rising magnitude, equal ones by rising place.
class RowOrder {
 public:
  explicit RowOrder(int64_t columns) : items_(columns), other_(columns) {}

  const uint64_t* of(const float* magnitudes, int64_t columns) {
    constexpr int kDigits = 3;
    constexpr int kBits = 11;
    uint32_t counts[kDigits][1 << kBits] = {};
    for (int64_t i = 0; i < columns; i++) {
      uint32_t key;
      memcpy(&key, magnitudes + i, 4);
      items_.data()[i] = static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(i);
      for (int d = 0; d < kDigits; d++) counts[d][key >> (kBits * d) & ((1 << kBits) - 1)]++;
    }
    uint64_t* from = items_.data();
    uint64_t* to = other_.data();
    for (int d = 0; d < kDigits; d++) {
      const int shift = 32 + kBits * d;
      const auto digit = [shift](uint64_t item) { return item >> shift & ((1 << kBits) - 1); };
      // All have the same digit.
      if (counts[d][digit(from[0])] == static_cast<uint32_t>(columns)) continue;
      uint32_t next = 0;
      for (uint32_t& count : counts[d]) {
        const uint32_t here = count;
        count = next;
        next += here;
      }
      for (int64_t i = 0; i < columns; i++) to[counts[d][digit(from[i])]++] = from[i];
      std::swap(from, to);
    }
    return from;
  }

  const uint64_t* of(const double* magnitudes, int64_t columns) {
    for (int64_t i = 0; i < columns; i++) items_.data()[i] = static_cast<uint64_t>(i);
    std::sort(items_.data(), items_.data() + columns, [magnitudes](uint64_t a, uint64_t b) {
      return magnitudes[a] < magnitudes[b] || (magnitudes[a] == magnitudes[b] && a < b);
    });
    return items_.data();
  }

 private:
  AlignedBuffer<uint64_t> items_;
  AlignedBuffer<uint64_t> other_;
};

template <class T>
int64_t mark_rows(const TaskVectors& vectors, const RankedRows& rows, uint8_t* mask, T* probabilities, int threads) {
  const int64_t columns = rows.columns;
  const int64_t number = vectors.elements / columns;
  memset(mask, 0, static_cast<size_t>((vectors.elements + 7) / 8));
  int64_t nans = 0;
  std::mutex mutex;
  // Eight rows end at a whole byte of the mask.
  const int64_t groups = (number + 7) / 8;
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / (8 * columns));
  parallel_for(groups, grain, threads, [&](int64_t first, int64_t last) {
    TaskBlocks<T> blocks(vectors);
    RowOrder order(columns);
    AlignedBuffer<T> magnitudes(columns);
    AlignedBuffer<uint32_t> words(columns);
    int64_t found = 0;
    for (int64_t row = 8 * first; row < std::min(8 * last, number); row++) {
      const int64_t begin = row * columns;
      for (int64_t from = 0; from < columns; from += kSparseBlock) {
        const int64_t count = std::min(kSparseBlock, columns - from);
        blocks.form(begin + from, count, &found);
        blocks.loops().magnitudes(blocks.block(0), count);
        memcpy(magnitudes.data() + from, blocks.block(0), sizeof(T) * static_cast<size_t>(count));
      }
      if (rows.uniforms == nullptr) element_words(rows.key, rows.first + begin, columns, words.data());
      const uint64_t* const places = order.of(magnitudes.data(), columns);
      for (int64_t rank = 0; rank < columns; rank++) {
        const int64_t i = static_cast<uint32_t>(places[rank]);
        const double probability = rows.low + rows.step * static_cast<double>(rank);
        const double uniform = rows.uniforms == nullptr ? words.data()[i] * 0x1p-32 : rows.uniforms[begin + i];
        if (probabilities != nullptr) probabilities[begin + i] = static_cast<T>(probability);
        if (uniform < probability) set_bit(mask, begin + i);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    nans += found;
  });
  return nans;
}

}  // namespace

void bernoulli_mask(const MaskKey& key, int64_t first, int64_t count, double density, uint8_t* mask, int threads) {
  const double limit = std::ceil(density * 0x1p32);
  const bool all = !(limit < 0x1p32);
  const bool none = !(limit > 0);
  const auto below = sparse_kernels().bits_below;
  const int64_t groups = (count + kGroup - 1) / kGroup;
  const int64_t shift = first % kGroup;
  parallel_for(groups, kGroupGrain, threads, [&](int64_t begin, int64_t end) {
    const auto bits_of = [&](int64_t group) -> uint64_t {
      if (all) return ~uint64_t{0};
      return none ? 0 : below(key, first / kGroup + group, static_cast<uint32_t>(limit));
    };
    uint64_t next = bits_of(begin);
    for (int64_t g = begin; g < end; g++) {
      uint64_t bits = next;
      if (g + 1 < end || shift != 0) next = bits_of(g + 1);
      if (shift != 0) bits = bits >> shift | next << (kGroup - shift);
      const int64_t left = count - g * kGroup;
      if (left < kGroup) bits &= (uint64_t{1} << left) - 1;
      // Little-endian: bit i of the group is bit i & 7 of byte i >> 3.
      memcpy(mask + g * 8, &bits, static_cast<size_t>(std::min<int64_t>(8, (left + 7) / 8)));
    }
  });
}

int64_t ranked_mask(const TaskVectors& vectors, const RankedRows& rows, uint8_t* mask, void* probabilities, int threads) {
  return vectors.wide ? mark_rows(vectors, rows, mask, static_cast<double*>(probabilities), threads)
                      : mark_rows(vectors, rows, mask, static_cast<float*>(probabilities), threads);
}

}  // namespace surprisal
