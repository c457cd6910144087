#include "pyramid_index.hpp"

#include <algorithm>
#include <mutex>

namespace surprisal {
namespace {

using Number = std::vector<uint64_t>;

constexpr size_t kKeptTables = 8;

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
  // The boundary U(0, 0) = 1 served the recurrence; no word ends there.
  if (limbs > 1) {
    table->order_keys.assign(static_cast<size_t>(length + 1) * table->stride, 0);
    for (int64_t n = 1; n <= length; n++) {
      for (int64_t k = 1; k <= pulses + 1; k++) {
        table->order_keys[n * table->stride + kTableMargin + k] = order_key(at(n, k), limbs);
      }
    }
  }
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

}  // namespace surprisal
