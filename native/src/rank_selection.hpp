// Order statistics of doubles by the digits of their keys: bits ordered as values are, 16 at a time. Values under a mask of 0
// are not looked at; -0 counts as 0.
#pragma once
#include <cstdint>

namespace surprisal {

constexpr int64_t kDigitBins = 65536;
constexpr int kDigits = 4;

// Values [count] with an optional mask [count].
struct MaskedValues {
  const double* values;
  const uint8_t* mask;
  int64_t count;
};

// Prefixes are the digits before as one number, exact in a double.
struct KeyPrefixes {
  const double* values;
  int64_t count;
};

// counts [prefixes, kDigitBins] += digit `digit` of every value whose digits before are a prefix. Position of the first NaN,
// or -1.
int64_t count_digits(const MaskedValues& input, const KeyPrefixes& prefixes, int digit, double* counts);

// Writes every value whose first `digits` digits are a prefix (all where there are none) to into [room] from `at` on. The
// position behind the last, which lies beyond `room` where they did not fit; -1 for a NaN, where `digits` is 0.
int64_t gather_prefixes(const MaskedValues& input, const KeyPrefixes& prefixes, int digits, double* into, int64_t room,
                        int64_t at);

// found [ranks, 3]: value at each of rising ranks, how many values are smaller, how many equal. No NaN, no -0.
void select_ranks(const double* values, int64_t count, const double* ranks, int64_t rank_count, double* found,
                  int threads);

}  // namespace surprisal
