// Order statistics without sorting. A sample brackets the value that is looked for; one pass counts what lies above the
// bracket and on its ends and keeps the few values between; the rest is a selection among those. A sample that misleads is
// noticed by the counts, and a radix selection over all values follows. Brackets decide how fast, not what.
#include <string.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>

#include "merge_sparse.hpp"
#include "merge_sparse_blocks.hpp"
#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Elements of a chunk: what ties are counted by.
constexpr int64_t kChunkBlocks = 64;
constexpr int64_t kChunk = kChunkBlocks * kSparseBlock;
// Up to this many elements are selected among directly.
constexpr int64_t kFew = 2 * kChunk;
constexpr int64_t kSampleRuns = 1024;
constexpr int64_t kSampleRun = 16;
constexpr int64_t kSample = kSampleRuns * kSampleRun;

int64_t chunks_of(int64_t elements) { return (elements + kChunk - 1) / kChunk; }

template <class T>
struct Candidate {
  T value;
  int64_t place;
};

// Where one rank lies: between `low` and `high`, if the sample tells the truth.
template <class T>
struct Bracket {
  int64_t rank;  // 1-based, by falling value
  T low, high;
  std::vector<Partition> chunks;
  std::vector<std::vector<Candidate<T>>> inside;
};

template <class T>
struct Found {
  T value;
  int64_t end;
};

// Values of a source by falling size. A source has `elements()`, and a `Reader` for each thread whose `read(from, count,
// target)` gives at most kSparseBlock values into a buffer of whole groups of eight and returns the number of NaN.
template <class T, class Source>
class Selection {
 public:
  Selection(const Source& source, int threads)
      : source_(source), loops_(sparse_kernels().of(static_cast<const T*>(nullptr))), threads_(threads) {}

  // Ranks from 1 to the number of elements; `nans` [reader's counters] may be null.
  std::vector<Found<T>> at(const std::vector<int64_t>& ranks, int64_t* nans) {
    if (source_.elements() <= kFew) return among_few(ranks, nans);
    std::vector<Bracket<T>> brackets = bracket(ranks);
    count(brackets, nans);
    std::vector<Found<T>> found;
    for (Bracket<T>& one : brackets) found.push_back(resolve(one));
    return found;
  }

 private:
  using Reader = typename Source::Reader;

  template <class Body>
  void over_chunks(Body&& body) {
    const int64_t elements = source_.elements();
    parallel_for(chunks_of(elements), 1, threads_, [&](int64_t first, int64_t last) {
      Reader reader(source_);
      AlignedBuffer<T> values(kSparseBlock);
      for (int64_t chunk = first; chunk < last; chunk++) {
        const int64_t end = std::min(elements, (chunk + 1) * kChunk);
        for (int64_t from = chunk * kChunk; from < end; from += kSparseBlock) {
          const int64_t count = std::min(kSparseBlock, end - from);
          reader.read(from, count, values.data());
          body(chunk, from, count, values.data());
        }
      }
    });
  }

  std::vector<Found<T>> among_few(const std::vector<int64_t>& ranks, int64_t* nans) {
    const int64_t elements = source_.elements();
    std::vector<T> values(static_cast<size_t>(elements) + 8);
    Reader reader(source_);
    AlignedBuffer<T> block(kSparseBlock);
    for (int64_t from = 0; from < elements; from += kSparseBlock) {
      const int64_t count = std::min(kSparseBlock, elements - from);
      reader.read(from, count, block.data());
      memcpy(values.data() + from, block.data(), sizeof(T) * static_cast<size_t>(count));
    }
    reader.take_nans(nans);
    values.resize(static_cast<size_t>(elements));
    std::vector<Found<T>> found;
    std::vector<T> order;
    for (const int64_t rank : ranks) {
      order = values;
      std::nth_element(order.begin(), order.begin() + (rank - 1), order.end(), std::greater<T>());
      const T value = order[static_cast<size_t>(rank - 1)];
      int64_t ties = rank;
      for (int64_t i = 0; i < rank; i++) ties -= order[static_cast<size_t>(i)] > value;
      int64_t end = 0;
      for (; ties > 0; end++) ties -= values[static_cast<size_t>(end)] == value;
      found.push_back({value, end});
    }
    return found;
  }

  std::vector<Bracket<T>> bracket(const std::vector<int64_t>& ranks) {
    const int64_t elements = source_.elements();
    Reader reader(source_);
    AlignedBuffer<T> run(kSparseBlock);
    std::vector<T> sample(kSample);
    for (int64_t r = 0; r < kSampleRuns; r++) {
      const int64_t from = (elements - kSampleRun) / (kSampleRuns - 1) * r;
      reader.read(from, kSampleRun, run.data());
      memcpy(sample.data() + r * kSampleRun, run.data(), sizeof(T) * kSampleRun);
    }
    reader.forget_nans();
    std::vector<Bracket<T>> brackets;
    for (const int64_t rank : ranks) {
      const double share = static_cast<double>(rank) / static_cast<double>(elements);
      const double middle = share * kSample;
      // Four standard deviations of a rank, half as much again because neighbours are alike.
      const double spread = 6 * std::sqrt(kSample * share * (1 - share)) + 16;
      const auto value_at = [&](double place, T beyond) {
        const auto at = static_cast<int64_t>(place);
        if (place < 0 || at >= kSample) return beyond;
        std::nth_element(sample.begin(), sample.begin() + at, sample.end(), std::greater<T>());
        return sample[static_cast<size_t>(at)];
      };
      constexpr T infinite = std::numeric_limits<T>::infinity();
      Bracket<T> one{rank, value_at(middle + spread, -infinite), value_at(middle - spread, infinite), {}, {}};
      one.chunks.resize(static_cast<size_t>(chunks_of(elements)));
      one.inside.resize(static_cast<size_t>(chunks_of(elements)));
      brackets.push_back(std::move(one));
    }
    return brackets;
  }

  void count(std::vector<Bracket<T>>& brackets, int64_t* nans) {
    const int64_t elements = source_.elements();
    std::atomic<int64_t> stored{0};
    // What a sample that tells the truth leaves between the ends is far less.
    const int64_t most = elements / 8;
    std::mutex mutex;
    parallel_for(chunks_of(elements), 1, threads_, [&](int64_t first, int64_t last) {
      Reader reader(source_);
      AlignedBuffer<T> values(kSparseBlock);
      std::vector<uint32_t> places(kSparseBlock + 16);
      for (int64_t chunk = first; chunk < last; chunk++) {
        const size_t c = static_cast<size_t>(chunk);
        const int64_t end = std::min(elements, (chunk + 1) * kChunk);
        for (int64_t from = chunk * kChunk; from < end; from += kSparseBlock) {
          const int64_t count = std::min(kSparseBlock, end - from);
          reader.read(from, count, values.data());
          for (Bracket<T>& one : brackets) {
            Partition& counts = one.chunks[c];
            const int64_t before = counts.inside;
            loops_.partition(values.data(), count, one.low, one.high, &counts);
            if (counts.inside == before || stored.load(std::memory_order_relaxed) > most) continue;
            const int64_t found = loops_.extract(values.data(), count, one.low, one.high, places.data());
            std::vector<Candidate<T>>& inside = one.inside[c];
            for (int64_t k = 0; k < found; k++) {
              const uint32_t place = places[static_cast<size_t>(k)];
              inside.push_back({values.data()[place], from + place});
            }
            stored.fetch_add(found, std::memory_order_relaxed);
          }
        }
      }
      const std::lock_guard<std::mutex> lock(mutex);
      reader.take_nans(nans);
    });
  }

  Found<T> resolve(Bracket<T>& bracket) {
    Partition all{};
    for (const Partition& chunk : bracket.chunks) {
      all.above += chunk.above;
      all.high += chunk.high;
      all.inside += chunk.inside;
      all.low += chunk.low;
    }
    int64_t rank = bracket.rank - all.above;
    if (rank <= 0) return by_radix(bracket.rank);
    if (rank <= all.high) {
      return {bracket.high, end_of_ties(bracket.high, rank, [&](size_t c) { return bracket.chunks[c].high; })};
    }
    rank -= all.high;
    if (rank <= all.inside) {
      std::vector<Candidate<T>> inside;
      for (const auto& chunk : bracket.inside) inside.insert(inside.end(), chunk.begin(), chunk.end());
      if (static_cast<int64_t>(inside.size()) != all.inside) return by_radix(bracket.rank);
      const auto before = [](const Candidate<T>& a, const Candidate<T>& b) {
        return a.value > b.value || (a.value == b.value && a.place < b.place);
      };
      std::nth_element(inside.begin(), inside.begin() + (rank - 1), inside.end(), before);
      const Candidate<T>& last = inside[static_cast<size_t>(rank - 1)];
      return {last.value, last.place + 1};
    }
    rank -= all.inside;
    if (rank > all.low) return by_radix(bracket.rank);
    return {bracket.low, end_of_ties(bracket.low, rank, [&](size_t c) { return bracket.chunks[c].low; })};
  }

  // Behind the element that is tie number `ties` of a value, by the ties of every chunk.
  template <class TiesOf>
  int64_t end_of_ties(T value, int64_t ties, TiesOf&& ties_of) {
    size_t c = 0;
    for (; ties > ties_of(c); c++) ties -= ties_of(c);
    Reader reader(source_);
    AlignedBuffer<T> values(kSparseBlock);
    for (int64_t from = static_cast<int64_t>(c) * kChunk;; from += kSparseBlock) {
      const int64_t count = std::min(kSparseBlock, source_.elements() - from);
      reader.read(from, count, values.data());
      const int64_t here = loops_.equal(values.data(), count, value);
      if (ties > here) {
        ties -= here;
        continue;
      }
      int64_t i = 0;
      for (; ties > 0; i++) ties -= values.data()[i] == value;
      return from + i;
    }
  }

  // 16 bits of a key that rises with the value, from the top; then the ties.
  Found<T> by_radix(int64_t rank) {
    using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    constexpr int kBits = 8 * sizeof(Key);
    const auto key_of = [](T value) {
      Key bits;
      memcpy(&bits, &value, sizeof bits);
      constexpr Key sign = Key{1} << (kBits - 1);
      return (bits & sign) != 0 ? static_cast<Key>(~bits) : static_cast<Key>(bits | sign);
    };
    Key prefix = 0;
    int64_t left = rank;
    for (int shift = kBits - 16; shift >= 0; shift -= 16) {
      std::vector<int64_t> histogram(1 << 16);
      std::mutex mutex;
      const int64_t elements = source_.elements();
      const int64_t grain = std::max<int64_t>(1, chunks_of(elements) / (4 * std::max(1, threads_)));
      parallel_for(chunks_of(elements), grain, threads_, [&](int64_t first, int64_t last) {
        Reader reader(source_);
        AlignedBuffer<T> values(kSparseBlock);
        std::vector<int64_t> own(1 << 16);
        const int64_t end = std::min(elements, last * kChunk);
        for (int64_t from = first * kChunk; from < end; from += kSparseBlock) {
          const int64_t count = std::min(kSparseBlock, end - from);
          reader.read(from, count, values.data());
          for (int64_t i = 0; i < count; i++) {
            const Key key = key_of(values.data()[i]);
            // No shift by all bits of the key.
            const bool within = shift == kBits - 16 || (key >> (shift + 15) >> 1) == (prefix >> (shift + 15) >> 1);
            if (within) own[static_cast<size_t>((key >> shift) & 0xffff)]++;
          }
        }
        const std::lock_guard<std::mutex> lock(mutex);
        for (size_t k = 0; k < own.size(); k++) histogram[k] += own[k];
      });
      size_t digit = histogram.size() - 1;
      for (; left > histogram[digit]; digit--) left -= histogram[digit];
      prefix |= static_cast<Key>(digit) << shift;
    }
    constexpr Key sign = Key{1} << (kBits - 1);
    const Key bits = (prefix & sign) != 0 ? static_cast<Key>(prefix ^ sign) : static_cast<Key>(~prefix);
    T value;
    memcpy(&value, &bits, sizeof value);
    std::vector<int64_t> equal(static_cast<size_t>(chunks_of(source_.elements())));
    std::atomic<int64_t> above{0};
    over_chunks([&](int64_t chunk, int64_t, int64_t count, const T* values) {
      Partition counts{};
      loops_.partition(values, count, value, value, &counts);
      equal[static_cast<size_t>(chunk)] += counts.high;
      above.fetch_add(counts.above, std::memory_order_relaxed);
    });
    return {value, end_of_ties(value, rank - above.load(), [&](size_t c) { return equal[c]; })};
  }

  const Source& source_;
  const SparseLoops<T>& loops_;
  const int threads_;
};

// |delta| of one model.
template <class T>
struct Magnitudes {
  const TaskVectors& vectors;
  int64_t elements() const { return vectors.elements; }

  class Reader {
   public:
    explicit Reader(const Magnitudes& source) : blocks_(source.vectors) {}
    void read(int64_t from, int64_t count, T* target) {
      blocks_.form(from, count, &nans_);
      memcpy(target, blocks_.block(0), sizeof(T) * static_cast<size_t>(count));
      blocks_.loops().magnitudes(target, count);
    }
    void forget_nans() { nans_ = 0; }
    void take_nans(int64_t* nans) {
      if (nans != nullptr) nans[0] += nans_;
    }

   private:
    TaskBlocks<T> blocks_;
    int64_t nans_ = 0;
  };
};

// Variance between models; `T` is the type of the task vectors.
template <class T>
struct Variances {
  const TaskVectors& vectors;
  int64_t elements() const { return vectors.elements; }

  class Reader {
   public:
    explicit Reader(const Variances& source)
        : models_(source.vectors.count), blocks_(source.vectors), nans_(static_cast<size_t>(models_)) {}
    void read(int64_t from, int64_t count, double* target) {
      blocks_.form(from, count, nans_.data());
      blocks_.loops().variance(blocks_.all(), models_, count, target);
    }
    void forget_nans() { std::fill(nans_.begin(), nans_.end(), 0); }
    void take_nans(int64_t* nans) {
      for (size_t j = 0; j < nans_.size() && nans != nullptr; j++) nans[j] += nans_[j];
    }

   private:
    int models_;
    TaskBlocks<T> blocks_;
    std::vector<int64_t> nans_;
  };
};

template <class T>
struct PlainValues {
  const T* values;
  int64_t count;
  int64_t elements() const { return count; }

  class Reader {
   public:
    explicit Reader(const PlainValues& source) : values_(source.values) {}
    void read(int64_t from, int64_t count, T* target) {
      memcpy(target, values_ + from, sizeof(T) * static_cast<size_t>(count));
    }
    void forget_nans() {}
    void take_nans(int64_t*) {}

   private:
    const T* values_;
  };
};

template <class T>
int64_t cuts_of(const TaskVectors& vectors, const double* ranks, int count, MagnitudeCut* cuts, int threads) {
  std::vector<int64_t> wanted;
  for (int k = 0; k < count; k++) {
    cuts[k] = {INFINITY, 0};
    if (ranks[k] > 0) wanted.push_back(static_cast<int64_t>(ranks[k]));
  }
  int64_t nans = 0;
  const Magnitudes<T> source{vectors};
  const std::vector<Found<T>> found = Selection<T, Magnitudes<T>>(source, threads).at(wanted, &nans);
  size_t next = 0;
  for (int k = 0; k < count; k++) {
    if (!(ranks[k] > 0)) continue;
    cuts[k] = {static_cast<double>(found[next].value), static_cast<double>(found[next].end)};
    next++;
  }
  return nans;
}

template <class T>
VarianceCut cut_of_variance(const TaskVectors& vectors, double share, double* nans, int threads) {
  const Variances<T> source{vectors};
  std::atomic<int64_t> nonzero{0};
  std::vector<int64_t> found(static_cast<size_t>(vectors.count));
  std::mutex mutex;
  parallel_for(sparse_blocks(vectors.elements), kChunkBlocks, threads, [&](int64_t first, int64_t last) {
    typename Variances<T>::Reader reader(source);
    AlignedBuffer<double> values(kSparseBlock);
    int64_t own = 0;
    for (int64_t b = first; b < last; b++) {
      const int64_t count = std::min(kSparseBlock, vectors.elements - b * kSparseBlock);
      reader.read(b * kSparseBlock, count, values.data());
      for (int64_t i = 0; i < count; i++) own += values.data()[i] != 0;
    }
    nonzero.fetch_add(own, std::memory_order_relaxed);
    const std::lock_guard<std::mutex> lock(mutex);
    reader.take_nans(found.data());
  });
  for (size_t j = 0; j < found.size(); j++) nans[j] = static_cast<double>(found[j]);
  const double selected = std::floor(share * static_cast<double>(nonzero.load()));
  if (!(selected > 0)) return {{INFINITY, 0}, selected};
  const auto cut =
      Selection<double, Variances<T>>(source, threads).at({static_cast<int64_t>(selected)}, nullptr)[0];
  return {{cut.value, static_cast<double>(cut.end)}, selected};
}

template <class T>
double kth_of(const T* values, int64_t count, int64_t k, int threads) {
  const PlainValues<T> source{values, count};
  return Selection<T, PlainValues<T>>(source, threads).at({count - k}, nullptr)[0].value;
}

}  // namespace

int64_t magnitude_cuts(const TaskVectors& vectors, const double* ranks, int count, MagnitudeCut* cuts, int threads) {
  return vectors.wide ? cuts_of<double>(vectors, ranks, count, cuts, threads)
                      : cuts_of<float>(vectors, ranks, count, cuts, threads);
}

VarianceCut variance_cut(const TaskVectors& vectors, double share, double* nans, int threads) {
  return vectors.wide ? cut_of_variance<double>(vectors, share, nans, threads)
                      : cut_of_variance<float>(vectors, share, nans, threads);
}

double select_kth(const float* values, int64_t count, int64_t k, int threads) {
  return kth_of(values, count, k, threads);
}

double select_kth(const double* values, int64_t count, int64_t k, int threads) {
  return kth_of(values, count, k, threads);
}

}  // namespace surprisal
