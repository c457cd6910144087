#include "pyramid_index.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>

#include "processor.hpp"
#include "pyramid_index_decode.hpp"
#include "pyramid_index_reader.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

using Number = std::vector<uint64_t>;

constexpr size_t kKeptTables = 8;
// Sums of squares of groups like those of normal weights, (pi / 2) K^2 / D, are mostly below.
constexpr int64_t kMostInverseNorms = 4096;

int bit_length(const uint64_t* number, int64_t limbs) {
  int64_t top = limbs - 1;
  while (top >= 0 && number[top] == 0) top--;
  return top < 0 ? 0 : static_cast<int>(64 * (top + 1)) - __builtin_clzll(number[top]);
}

// Bit length of number - 1, for number >= 1.
int index_bits(Number number) {
  for (uint64_t& limb : number) {
    if (limb-- != 0) break;
  }
  return bit_length(number.data(), static_cast<int64_t>(number.size()));
}

// target = a + b + c, all of `limbs` limbs; false when it does not fit.
bool add_three(const uint64_t* a, const uint64_t* b, const uint64_t* c, int limbs, uint64_t* target) {
  unsigned __int128 carry = 0;
  for (int l = 0; l < limbs; l++) {
    carry += static_cast<unsigned __int128>(a[l]) + b[l] + c[l];
    target[l] = static_cast<uint64_t>(carry);
    carry >>= 64;
  }
  return carry == 0;
}

// An upper bound of the limbs of N(D, K), exact but for rare cases: one row of U at a time, grown when it overflows.
int limbs_of_count(int length, int pulses) {
  for (int limbs = 1;; limbs++) {
    // U(n, 0..K+1), n from 0; the place before the first is zero.
    std::vector<uint64_t> row(static_cast<size_t>(pulses + 3) * limbs, 0), next(row.size(), 0);
    const auto at = [limbs](std::vector<uint64_t>& of, int k) { return of.data() + static_cast<size_t>(k + 1) * limbs; };
    at(row, 0)[0] = 1;
    bool fits = true;
    for (int n = 1; n <= length && fits; n++) {
      std::fill(at(next, 0), at(next, 1), 0);
      for (int k = 1; k <= pulses + 1 && fits; k++) {
        fits = add_three(at(row, k), at(next, k - 1), at(row, k - 1), limbs, at(next, k));
      }
      row.swap(next);
    }
    if (!fits) continue;
    const Number zero(limbs, 0);
    Number count(limbs, 0);
    if (add_three(at(row, pulses), at(row, pulses + 1), zero.data(), limbs, count.data())) return limbs;
  }
}

std::shared_ptr<const PyramidTable> build_table(int length, int pulses) {
  auto table = std::make_shared<PyramidTable>();
  const int limbs = limbs_of_count(length, pulses);
  table->length = length;
  table->pulses = pulses;
  table->limbs = limbs;
  // Rows of whole cache lines, and room for windows that end at K + 1.
  table->stride = (kTableMargin + pulses + 2 + 7) / 8 * 8;
  table->entries.assign(static_cast<size_t>(length + 1) * table->stride * limbs, 0);
  const auto at = [&](int64_t n, int64_t k) { return const_cast<uint64_t*>(table->entry(n, k)); };
  at(0, 0)[0] = 1;
  for (int n = 1; n <= length; n++) {
    for (int k = 1; k <= pulses + 1; k++) add_three(at(n - 1, k), at(n, k - 1), at(n - 1, k - 1), limbs, at(n, k));
  }
  const Number zero(limbs, 0);
  Number count(limbs);
  table->row_limbs.assign(length + 1, 1);
  for (int n = 1; n <= length; n++) {
    add_three(at(n, pulses), at(n, pulses + 1), zero.data(), limbs, count.data());
    table->row_limbs[n] = std::max(1, (bit_length(count.data(), limbs) + 63) / 64);
  }
  table->count = count;
  table->bits = index_bits(count);
  if (limbs > 1) {
    table->order_keys.assign(static_cast<size_t>(length + 1) * table->stride, 0);
    for (int64_t n = 1; n <= length; n++) {
      for (int64_t k = 1; k <= pulses + 1; k++) {
        const uint64_t* entry = at(n, k);
        const bool plain = table->row_limbs[n] == 1;
        table->order_keys[n * table->stride + kTableMargin + k] =
            plain ? static_cast<int64_t>(entry[0]) : order_key(entry, limbs);
      }
    }
  }
  const int64_t norms = std::min(kMostInverseNorms, int64_t{pulses} * pulses + 1);
  table->inverse_norms.resize(norms);
  for (int64_t s = 0; s < norms; s++) table->inverse_norms[s] = 1.0 / std::sqrt(static_cast<double>(s));
  return table;
}

Number power(const Number& base, int64_t exponent) {
  Number result{1};
  const Number zero(base.size(), 0);
  for (int64_t i = 0; i < exponent; i++) {
    result.resize(result.size() + base.size(), 0);
    multiply_add(result.data(), static_cast<int>(result.size()), base.data(), zero.data(),
                 static_cast<int>(base.size()));
    while (result.size() > 1 && result.back() == 0) result.pop_back();
  }
  return result;
}

}  // namespace

std::shared_ptr<const PyramidTable> pyramid_table(int length, int pulses) {
  static std::mutex lock;
  static std::vector<std::shared_ptr<const PyramidTable>> kept;  // the last used at the end
  std::lock_guard<std::mutex> hold(lock);
  for (size_t i = 0; i < kept.size(); i++) {
    if (kept[i]->length != length || kept[i]->pulses != pulses) continue;
    std::rotate(kept.begin() + i, kept.begin() + i + 1, kept.end());
    return kept.back();
  }
  std::shared_ptr<const PyramidTable> table = build_table(length, pulses);
  if (kept.size() == kKeptTables) kept.erase(kept.begin());
  kept.push_back(table);
  return table;
}

IndexLayout index_layout(int length, int pulses, int super_group, int64_t groups) {
  IndexLayout layout;
  layout.table = pyramid_table(length, pulses);
  layout.super_group = super_group;
  layout.groups = groups;
  const Number& count = layout.table->count;
  const int64_t rest = groups % super_group;
  layout.word_bits = index_bits(power(count, super_group));
  layout.rest_bits = rest == 0 ? 0 : index_bits(power(count, rest));
  layout.word_limbs = std::max(1, (layout.word_bits + 63) / 64);
  layout.row_bytes = (groups / super_group * layout.word_bits + layout.rest_bits + 7) / 8;
  return layout;
}

namespace {

// Weights that a thread decodes at a time.
constexpr int64_t kGrain = 1 << 15;
// Pulses that are held between decoding and scaling: they stay in the nearest cache.
constexpr int64_t kHeldPulses = 4096;

const DecodeKernels& decode_kernels() {
#if defined(__x86_64__)
  if (simd_level() != Simd::Baseline) return kDecodeKernelsAvx2;
#endif
  return kDecodeKernelsBaseline;
}

// Keeps the smallest of the places it is told.
class FirstPlace {
 public:
  void tell(int64_t place) {
    int64_t known = place_.load(std::memory_order_relaxed);
    while (place < known && !place_.compare_exchange_weak(known, place, std::memory_order_relaxed)) {
    }
  }
  int64_t get() const {
    const int64_t place = place_.load(std::memory_order_relaxed);
    return place == INT64_MAX ? -1 : place;
  }

 private:
  std::atomic<int64_t> place_{INT64_MAX};
};

int64_t rows_of_grain(const IndexLayout& layout) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, layout.groups * layout.table->length));
}

// Calls body(row, group, count, indices) for runs of the groups of every row, whose indices are all below N. Gives the
// first place, row * groups + group, where one is not, or -1.
template <class Body>
int64_t for_index_runs(const IndexLayout& layout, const uint8_t* index, int64_t index_bytes, int64_t first_row,
                       int64_t rows, int threads, const Body& body) {
  const PyramidTable& table = *layout.table;
  const int64_t wanted = std::max<int64_t>(8, kHeldPulses / table.length);
  const int64_t run = std::max<int64_t>(1, wanted / layout.super_group) * layout.super_group;
  FirstPlace outside;
  parallel_for(rows, rows_of_grain(layout), threads, [&](int64_t begin, int64_t end) {
    IndexReader reader(layout);
    auto run_body = body();
    Number indices(static_cast<size_t>(std::min(run, layout.groups)) * table.limbs);
    for (int64_t row = first_row + begin; row < first_row + end; row++) {
      reader.begin(index + row * layout.row_bytes, index_bytes - row * layout.row_bytes);
      for (int64_t group = 0; group < layout.groups; group += run) {
        const int64_t count = std::min(run, layout.groups - group);
        const int64_t bad = reader.next(count, indices.data());
        if (bad >= 0) {
          outside.tell(row * layout.groups + group + bad);
          return;
        }
        run_body(row, group, count, indices.data());
      }
    }
  });
  return outside.get();
}

// A window of 8 is mostly enough up to about this mean of the absolute coordinates.
constexpr int kLargeMean = 3;

auto decoder(const PyramidTable& table) {
  const DecodeKernels& kernels = decode_kernels();
  return table.pulses > kLargeMean * table.length ? kernels.decode_large : kernels.decode;
}

}  // namespace

int64_t pack_pulses(const IndexLayout& layout, const int16_t* pulses, int64_t rows, uint8_t* target, int threads) {
  const PyramidTable& table = *layout.table;
  FirstPlace off;
  parallel_for(rows, rows_of_grain(layout), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      RowIndexWriter writer(layout, target + row * layout.row_bytes);
      const int16_t* y = pulses + row * layout.groups * table.length;
      for (int64_t group = 0; group < layout.groups; group++, y += table.length) {
        if (!has_pulses(y, table.length, table.pulses)) {
          off.tell(row * layout.groups + group);
          return;
        }
        writer.push(y);
      }
      writer.finish();
    }
  });
  return off.get();
}

int64_t unpack_pulses(const IndexLayout& layout, const uint8_t* index, int64_t index_bytes, int64_t rows,
                      int16_t* target, int threads) {
  const PyramidTable& table = *layout.table;
  const auto decode = decoder(table);
  return for_index_runs(layout, index, index_bytes, 0, rows, threads, [&] {
    return [&](int64_t row, int64_t group, int64_t count, const uint64_t* indices) {
      decode(table, indices, count, target + (row * layout.groups + group) * table.length);
    };
  });
}

int64_t dequantize_pyramid(const IndexLayout& layout, const StoredRows& encoded, int64_t first_row, int64_t rows,
                           float* target, int threads) {
  const PyramidTable& table = *layout.table;
  const int length = table.length;
  const auto decode = decoder(table);
  const auto scale = decode_kernels().scale;
  const int64_t gain_row = (layout.groups * encoded.gain_bits + 7) / 8;
  const int64_t zero_row = (layout.groups + 7) / 8;
  const int levels = 1 << encoded.gain_bits;
  return for_index_runs(layout, encoded.index, encoded.index_bytes, first_row, rows, threads, [&] {
    return [&, pulses = std::vector<int16_t>(), amplitudes = std::vector<double>(), tail = std::vector<float>(length),
            codes = std::vector<uint8_t>(gain_row + 2)](int64_t row, int64_t group, int64_t count,
                                                        const uint64_t* indices) mutable {
      pulses.resize(std::max<size_t>(pulses.size(), count * length));
      amplitudes.resize(std::max<size_t>(amplitudes.size(), count));
      decode(table, indices, count, pulses.data());
      // A code lies in one byte or two: the row is copied so that the second may always be read.
      if (group == 0 && gain_row > 0) std::memcpy(codes.data(), encoded.gain + row * gain_row, gain_row);
      const double row_scale = encoded.scales[row];
      for (int64_t g = 0; g < count; g++) {
        const int64_t at = (group + g) * encoded.gain_bits;
        uint16_t pair;
        std::memcpy(&pair, codes.data() + (at >> 3), 2);
        amplitudes[g] = row_scale * encoded.levels[(pair >> (at & 7)) & (levels - 1)];
      }
      float* weights = target + (row - first_row) * encoded.columns + group * length;
      const int64_t whole = std::min(count, (encoded.columns - group * length) / length);
      scale(table, pulses.data(), whole, amplitudes.data(), weights);
      if (whole < count) {
        scale(table, pulses.data() + whole * length, 1, amplitudes.data() + whole, tail.data());
        std::copy_n(tail.data(), encoded.columns - (group + whole) * length, weights + whole * length);
      }
      if (encoded.zero_groups == nullptr) return;
      const uint8_t* zero = encoded.zero_groups + row * zero_row;
      for (int64_t g = 0; g < count; g++) {
        if (((zero[(group + g) >> 3] >> ((group + g) & 7)) & 1) == 0) continue;
        const int64_t width = std::min<int64_t>(length, encoded.columns - (group + g) * length);
        std::fill_n(weights + g * length, width, 0.0f);
      }
    };
  });
}

}  // namespace surprisal
