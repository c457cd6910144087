#include "merge_importance.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Elements a thread takes at a time.
constexpr int64_t kGrain = 1 << 16;

const ImportanceKernels& kernels() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kImportanceAvx512;
  if (simd_level() == Simd::Avx2) return kImportanceAvx2;
#endif
  return kImportanceBaseline;
}

// `use(row, from, count)` over the parts of rows that make up [begin, end).
template <class Use>
void over_rows(const ImportancePair& pair, int64_t begin, int64_t end, Use&& use) {
  while (begin < end) {
    const int64_t row = begin / pair.columns;
    const int64_t count = std::min(end, (row + 1) * pair.columns) - begin;
    use(row, begin, count);
    begin += count;
  }
}

// Ordered as the numbers are, NaN above all.
uint64_t key_of(double value) {
  if (value != value) value = __builtin_nan("");
  uint64_t bits;
  std::memcpy(&bits, &value, 8);
  return (bits >> 63) != 0 ? ~bits : bits ^ (uint64_t{1} << 63);
}

}  // namespace

void row_divergences(const ImportancePair& pair, double* target, int threads) {
  const ImportanceKernels& use = kernels();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, pair.columns));
  parallel_for(pair.rows, grain, threads,
               [&](int64_t first, int64_t last) { use.divergences(pair, first, last, target); });
}

void importances(const ImportancePair& pair, const double* divergences, double* target, int threads) {
  const ImportanceKernels& use = kernels();
  parallel_for(pair.rows * pair.columns, kGrain, threads, [&](int64_t begin, int64_t end) {
    over_rows(pair, begin, end, [&](int64_t row, int64_t from, int64_t count) {
      use.importances(pair, divergences[row], from, count, target + from);
    });
  });
}

void count_digits(const ImportancePair& pair, const double* divergences, const int32_t* digits, int targets, int level,
                  double* counts, int threads) {
  const ImportanceKernels& use = kernels();
  const int64_t elements = pair.rows * pair.columns;
  const int parts = std::max(1, threads);
  const int shift = 48 - 16 * level;
  uint64_t prefixes[kMostRanks] = {};
  for (int t = 0; t < targets; t++) {
    for (int before = 0; before < level; before++) prefixes[t] = prefixes[t] << 16 | static_cast<uint32_t>(digits[4 * t + before]);
  }
  // At the first digit all targets count the same.
  const int distinct = level == 0 ? 1 : targets;
  const size_t size = static_cast<size_t>(distinct) * kDigitValues;
  std::vector<int64_t> part_counts(size * static_cast<size_t>(parts));
  parallel_for(parts, 1, threads, [&](int64_t first, int64_t last) {
    std::vector<double> chunk(4096);
    for (int64_t part = first; part < last; part++) {
      int64_t* const of = part_counts.data() + size * static_cast<size_t>(part);
      over_rows(pair, elements * part / parts, elements * (part + 1) / parts, [&](int64_t row, int64_t from, int64_t count) {
        for (int64_t at = 0; at < count; at += 4096) {
          const int64_t length = std::min<int64_t>(4096, count - at);
          use.importances(pair, divergences[row], from + at, length, chunk.data());
          for (int64_t i = 0; i < length; i++) {
            const uint64_t key = key_of(chunk[i]) >> shift;
            if (level == 0) {
              of[key]++;
              continue;
            }
            for (int t = 0; t < targets; t++) {
              if (key >> 16 == prefixes[t]) of[t * kDigitValues + static_cast<int64_t>(key & 0xffff)]++;
            }
          }
        }
      });
    }
  });
  for (int t = 0; t < targets; t++) {
    for (int64_t d = 0; d < kDigitValues; d++) {
      int64_t total = 0;
      for (int part = 0; part < parts; part++) {
        total += part_counts[size * static_cast<size_t>(part) + static_cast<size_t>((level == 0 ? 0 : t) * kDigitValues + d)];
      }
      counts[t * kDigitValues + d] = static_cast<double>(total);
    }
  }
}

int64_t take_important(const ImportancePair& pair, const double* divergences, double threshold,
                       const StoredOutput& output, int threads) {
  const ImportanceKernels& use = kernels();
  std::atomic<int64_t> taken{0};
  parallel_for(pair.rows * pair.columns, kGrain, threads, [&](int64_t begin, int64_t end) {
    over_rows(pair, begin, end, [&](int64_t row, int64_t from, int64_t count) {
      taken += use.take(pair, divergences[row], threshold, from, count, output);
    });
  });
  return taken;
}

}  // namespace surprisal
