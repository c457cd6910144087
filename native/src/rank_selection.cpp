#include "rank_selection.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Bits of a bin of the histogram in memory: sign, exponent and four bits of the fraction, or eight for many values.
constexpr int kFewBits = 16, kManyBits = 20;
constexpr int64_t kMany = int64_t{1} << 22;
// Fewer values than these are copied and selected as they are.
constexpr int64_t kSmall = 1 << 15;

inline uint64_t key_of(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint64_t negative = static_cast<uint64_t>(static_cast<int64_t>(bits) >> 63);
  return bits ^ (negative | (uint64_t{1} << 63));
}

inline int64_t prefix_place(const KeyPrefixes& prefixes, const std::vector<uint64_t>& wanted, uint64_t prefix) {
  for (int64_t p = 0; p < prefixes.count; p++) {
    if (wanted[p] == prefix) return p;
  }
  return -1;
}

std::vector<uint64_t> integers_of(const KeyPrefixes& prefixes) {
  std::vector<uint64_t> result(prefixes.count);
  for (int64_t p = 0; p < prefixes.count; p++) result[p] = static_cast<uint64_t>(prefixes.values[p]);
  return result;
}

// The rank'th of values [count], and how many lie below and at it; `offset` smaller values are not among them.
void select_one(double* values, int64_t count, int64_t rank, int64_t offset, double* found) {
  std::nth_element(values, values + rank, values + count);
  const double value = values[rank];
  int64_t below = 0, equal = 0;
  for (int64_t i = 0; i < count; i++) {
    below += values[i] < value;
    equal += values[i] == value;
  }
  found[0] = value;
  found[1] = static_cast<double>(offset + below);
  found[2] = static_cast<double>(equal);
}

// One bin of the histogram that holds wanted ranks.
struct WantedBin {
  uint64_t bin;
  int64_t below, inside, first_rank, last_rank;
};

std::vector<WantedBin> wanted_bins(const std::vector<uint32_t>& counts, const double* ranks, int64_t rank_count) {
  std::vector<WantedBin> result;
  int64_t below = 0, next = 0;
  for (int64_t b = 0; b < static_cast<int64_t>(counts.size()) && next < rank_count; b++) {
    const int64_t inside = counts[b], first = next;
    while (next < rank_count && static_cast<int64_t>(ranks[next]) < below + inside) next++;
    if (next > first) result.push_back({static_cast<uint64_t>(b), below, inside, first, next});
    below += inside;
  }
  return result;
}

}  // namespace

int64_t count_digits(const MaskedValues& input, const KeyPrefixes& prefixes, int digit, double* counts) {
  const std::vector<uint64_t> wanted = integers_of(prefixes);
  const int shift = 16 * (kDigits - 1 - digit);
  for (int64_t i = 0; i < input.count; i++) {
    if (input.mask != nullptr && input.mask[i] == 0) continue;
    const double value = input.values[i] + 0.0;
    if (value != value) return i;
    const uint64_t head = key_of(value) >> shift;
    const int64_t place = digit == 0 ? 0 : prefix_place(prefixes, wanted, head >> 16);
    if (place >= 0) counts[place * kDigitBins + static_cast<int64_t>(head & 0xffff)] += 1;
  }
  return -1;
}

int64_t gather_prefixes(const MaskedValues& input, const KeyPrefixes& prefixes, int digits, double* into, int64_t room,
                        int64_t at) {
  const std::vector<uint64_t> wanted = integers_of(prefixes);
  const int shift = 16 * (kDigits - digits);
  bool hostile = false;
  for (int64_t i = 0; i < input.count; i++) {
    if (input.mask != nullptr && input.mask[i] == 0) continue;
    const double value = input.values[i] + 0.0;
    if (digits == 0) hostile |= value != value;
    else if (prefix_place(prefixes, wanted, key_of(value) >> shift) < 0) continue;
    if (at < room) into[at] = value;
    at++;
  }
  return hostile ? -1 : at;
}

void select_ranks(const double* values, int64_t count, const double* ranks, int64_t rank_count, double* found,
                  int threads) {
  if (count < kSmall) {
    std::vector<double> copy(values, values + count);
    for (int64_t r = 0; r < rank_count; r++) {
      select_one(copy.data(), count, static_cast<int64_t>(ranks[r]), 0, found + 3 * r);
    }
    return;
  }
  const int bits = count < kMany ? kFewBits : kManyBits;
  const int64_t bins = int64_t{1} << bits;
  const int64_t shares = std::max(1, std::min(threads, 16));
  const int64_t share = (count + shares - 1) / shares;
  std::vector<std::vector<uint32_t>> tables(shares);
  parallel_for(shares, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
      tables[s].assign(bins, 0);
      uint32_t* table = tables[s].data();
      const int64_t stop = std::min(count, (s + 1) * share);
      for (int64_t i = s * share; i < stop; i++) table[key_of(values[i]) >> (64 - bits)]++;
    }
  });
  for (int64_t s = 1; s < shares; s++) {
    for (int64_t b = 0; b < bins; b++) tables[0][b] += tables[s][b];
  }
  const std::vector<WantedBin> wanted = wanted_bins(tables[0], ranks, rank_count);
  // The table tells for every bin which list its values go to, 0 for none.
  std::vector<uint32_t>& list_of = tables[0];
  std::fill(list_of.begin(), list_of.end(), 0);
  for (size_t w = 0; w < wanted.size(); w++) list_of[wanted[w].bin] = static_cast<uint32_t>(w + 1);
  std::vector<std::vector<std::vector<double>>> lists(shares, std::vector<std::vector<double>>(wanted.size()));
  parallel_for(shares, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
      const int64_t stop = std::min(count, (s + 1) * share);
      for (int64_t i = s * share; i < stop; i++) {
        const uint32_t list = list_of[key_of(values[i]) >> (64 - bits)];
        if (list != 0) lists[s][list - 1].push_back(values[i]);
      }
    }
  });
  parallel_for(static_cast<int64_t>(wanted.size()), 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; w++) {
      std::vector<double> held;
      held.reserve(wanted[w].inside);
      for (int64_t s = 0; s < shares; s++) {
        held.insert(held.end(), lists[s][w].begin(), lists[s][w].end());
        std::vector<double>().swap(lists[s][w]);
      }
      for (int64_t r = wanted[w].first_rank; r < wanted[w].last_rank; r++) {
        const int64_t rank = static_cast<int64_t>(ranks[r]) - wanted[w].below;
        select_one(held.data(), wanted[w].inside, rank, wanted[w].below, found + 3 * r);
      }
    }
  });
}

}  // namespace surprisal
