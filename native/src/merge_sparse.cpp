#include "merge_sparse.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "merge_sparse_blocks.hpp"
#include "processor.hpp"
#include "thread_pool.hpp"

namespace surprisal {

const SparseKernels& sparse_kernels() {
#if defined(__x86_64__)
  if (simd_level() == Simd::Avx512) return kSparseAvx512;
  if (simd_level() == Simd::Avx2) return kSparseAvx2;
#endif
  return kSparseBaseline;
}

namespace {

// Blocks that a thread takes at a time.
constexpr int64_t kGrain = 64;

// `body(blocks, block, from, count)` for every block of the task vectors, and `done(blocks)` behind each range.
template <class T, class Make, class Body, class Done>
void over_blocks(const TaskVectors& vectors, int threads, Make&& make, Body&& body, Done&& done) {
  parallel_for(sparse_blocks(vectors.elements), kGrain, threads, [&](int64_t first, int64_t last) {
    TaskBlocks<T> blocks(vectors);
    auto state = make();
    for (int64_t b = first; b < last; b++) {
      const int64_t from = b * kSparseBlock;
      body(blocks, state, b, from, std::min(kSparseBlock, vectors.elements - from));
    }
    done(state);
  });
}

// Whole numbers and smallest values, which do not depend on the order of ranges.
struct Tally {
  std::vector<int64_t> counts;
  MixTally divisors{INFINITY, 0};
  explicit Tally(size_t size) : counts(size, 0) {}
  void add(const Tally& other) {
    for (size_t i = 0; i < counts.size(); i++) counts[i] += other.counts[i];
    divisors.smallest = std::min(divisors.smallest, other.divisors.smallest);
    divisors.small += other.divisors.small;
  }
};

class Total {
 public:
  explicit Total(size_t size) : sum_(size) {}
  void add(const Tally& tally) {
    const std::lock_guard<std::mutex> lock(mutex_);
    sum_.add(tally);
  }
  const Tally& sum() const { return sum_; }

 private:
  std::mutex mutex_;
  Tally sum_;
};

template <class T>
TaskVectorFigures measure(const TaskVectors& vectors, const Sparsity& sparsity, int threads) {
  Total total(2);
  std::vector<double> sums(static_cast<size_t>(4 * sparse_blocks(vectors.elements)));
  over_blocks<T>(
      vectors, threads, [] { return Tally(2); },
      [&](TaskBlocks<T>& blocks, Tally& tally, int64_t b, int64_t from, int64_t count) {
        double* const into = sums.data() + 4 * b;
        double whole[3];
        blocks.form(from, count, &tally.counts[1]);
        const bool plain = sparsity.mask == nullptr && sparsity.probabilities == nullptr && sparsity.keep.magnitude < 0 &&
                           sparsity.drop.end == 0 && std::isinf(sparsity.drop.magnitude);
        if (plain) {
          tally.counts[0] += count;
          blocks.loops().sums(blocks.block(0), count, into + 1);
          into[0] = into[2];
          return;
        }
        blocks.loops().sums(blocks.block(0), count, whole);
        into[0] = whole[1];
        tally.counts[0] += blocks.sparsify(sparsity, 0, from, count);
        blocks.loops().sums(blocks.block(0), count, into + 1);
      },
      [&](const Tally& tally) { total.add(tally); });
  double figures[4] = {};
  for (size_t i = 0; i < sums.size(); i++) figures[i % 4] += sums[i];
  const auto& counts = total.sum().counts;
  return {static_cast<double>(counts[0]), static_cast<double>(counts[1]), figures[0], figures[1], figures[2], figures[3]};
}

template <class T>
void mark_variance(const TaskVectors& vectors, const MagnitudeCut& cut, uint8_t* mask, double* squares, int threads) {
  const size_t models = static_cast<size_t>(vectors.count);
  std::vector<double> sums(models * static_cast<size_t>(sparse_blocks(vectors.elements)));
  over_blocks<T>(
      vectors, threads, [] { return AlignedBuffer<double>(kSparseBlock); },
      [&](TaskBlocks<T>& blocks, AlignedBuffer<double>& variances, int64_t b, int64_t from, int64_t count) {
        blocks.form(from, count, nullptr);
        blocks.loops().variance(blocks.all(), vectors.count, count, variances.data());
        uint8_t* const bits = mask + from / 8;
        for (int64_t i = 0; i < count; i += 8) {
          unsigned byte = 0;
          for (int64_t k = 0; k < std::min<int64_t>(8, count - i); k++) {
            byte |= static_cast<unsigned>(is_inside(cut, variances.data()[i + k], from + i + k)) << k;
          }
          bits[i / 8] = static_cast<uint8_t>(byte);
        }
        const Sparsity marked = {{-1, 0}, {INFINITY, 0}, mask, nullptr};
        for (int j = 0; j < vectors.count; j++) {
          double found[3];
          blocks.sparsify(marked, j, from, count);
          blocks.loops().sums(blocks.block(j), count, found);
          sums[static_cast<size_t>(b) * models + static_cast<size_t>(j)] = found[2];
        }
      },
      [](const AlignedBuffer<double>&) {});
  std::fill(squares, squares + models, 0.0);
  for (size_t i = 0; i < sums.size(); i++) squares[i % models] += sums[i];
}

// Two blocks of doubles: the base and the result.
struct Doubles {
  AlignedBuffer<double> origin{kSparseBlock};
  AlignedBuffer<double> result{kSparseBlock};
  Tally tally;
  explicit Doubles(size_t size) : tally(size) {}
};

template <class T>
void mix(const TaskVectors& vectors, const MixedModel* models, const MixSettings& settings, const StoredOutput& output,
         double* figures, int threads) {
  const size_t number = static_cast<size_t>(vectors.count);
  const bool onto_base = settings.onto_base && vectors.base != nullptr;
  Total total(2 * number);
  over_blocks<T>(
      vectors, threads, [&] { return Doubles(2 * number); },
      [&](TaskBlocks<T>& blocks, Doubles& state, int64_t, int64_t from, int64_t count) {
        blocks.form(from, count, state.tally.counts.data() + number);
        for (int j = 0; j < vectors.count; j++) {
          state.tally.counts[static_cast<size_t>(j)] += blocks.sparsify(models[j].sparsity, j, from, count);
        }
        if (onto_base) sparse_kernels().origin(*vectors.base, from, count, state.origin.data());
        blocks.loops().mix(blocks.all(), vectors.count, models, settings, onto_base ? state.origin.data() : nullptr, count,
                           state.result.data(), &state.tally.divisors);
        sparse_kernels().store(state.result.data(), output, from, count);
      },
      [&](const Doubles& state) { total.add(state.tally); });
  const Tally& sum = total.sum();
  for (size_t k = 0; k < 2 * number; k++) figures[k] = static_cast<double>(sum.counts[k]);
  figures[2 * number] = sum.divisors.smallest;
  figures[2 * number + 1] = static_cast<double>(sum.divisors.small);
}

// Results that are a function of base and task vectors of the same element: `into(blocks, origin, count, target)`.
template <class T, class Into>
void mix_blocks(const TaskVectors& vectors, const StoredOutput& output, double* nans, int threads, Into&& into) {
  const size_t number = static_cast<size_t>(vectors.count);
  Total total(number);
  over_blocks<T>(
      vectors, threads, [&] { return Doubles(number); },
      [&](TaskBlocks<T>& blocks, Doubles& state, int64_t, int64_t from, int64_t count) {
        blocks.form(from, count, state.tally.counts.data());
        sparse_kernels().origin(*vectors.base, from, count, state.origin.data());
        into(blocks, state.origin.data(), count, state.result.data());
        sparse_kernels().store(state.result.data(), output, from, count);
      },
      [&](const Doubles& state) { total.add(state.tally); });
  if (nans == nullptr) return;
  for (size_t j = 0; j < number; j++) nans[j] = static_cast<double>(total.sum().counts[j]);
}

template <class T>
void count_active(const TaskVectors& vectors, double epsilon, double* figures, int threads) {
  const size_t number = static_cast<size_t>(vectors.count);
  Total total(3 * number);
  over_blocks<T>(
      vectors, threads, [&] { return Tally(3 * number); },
      [&](TaskBlocks<T>& blocks, Tally& tally, int64_t, int64_t from, int64_t count) {
        blocks.form(from, count, tally.counts.data() + 2 * number);
        blocks.loops().count_active(blocks.all(), vectors.count, epsilon, count, tally.counts.data(),
                                    tally.counts.data() + number);
      },
      [&](const Tally& tally) { total.add(tally); });
  for (size_t k = 0; k < 3 * number; k++) figures[k] = static_cast<double>(total.sum().counts[k]);
}

}  // namespace

TaskVectorFigures measure_task_vector(const TaskVectors& vectors, const Sparsity& sparsity, int threads) {
  return vectors.wide ? measure<double>(vectors, sparsity, threads) : measure<float>(vectors, sparsity, threads);
}

void variance_mask(const TaskVectors& vectors, const MagnitudeCut& cut, uint8_t* mask, double* squares, int threads) {
  if (vectors.wide) mark_variance<double>(vectors, cut, mask, squares, threads);
  else mark_variance<float>(vectors, cut, mask, squares, threads);
}

void mix_task_vectors(const TaskVectors& vectors, const MixedModel* models, const MixSettings& settings,
                      const StoredOutput& output, double* figures, int threads) {
  if (vectors.wide) mix<double>(vectors, models, settings, output, figures, threads);
  else mix<float>(vectors, models, settings, output, figures, threads);
}

void active_counts(const TaskVectors& vectors, double epsilon, double* figures, int threads) {
  if (vectors.wide) count_active<double>(vectors, epsilon, figures, threads);
  else count_active<float>(vectors, epsilon, figures, threads);
}

void mix_active(const TaskVectors& vectors, double epsilon, const double* factors, const StoredOutput& output,
                int threads) {
  const auto into = [&](auto& blocks, const double* origin, int64_t count, double* target) {
    blocks.loops().mix_active(blocks.all(), vectors.count, epsilon, factors, origin, count, target);
  };
  if (vectors.wide) mix_blocks<double>(vectors, output, nullptr, threads, into);
  else mix_blocks<float>(vectors, output, nullptr, threads, into);
}

void mix_by_variation(const TaskVectors& vectors, bool squares, double floor, const StoredOutput& output, double* nans,
                      int threads) {
  const auto into = [&](auto& blocks, const double* origin, int64_t count, double* target) {
    blocks.loops().mix_by_variation(blocks.all(), vectors.count, squares, floor, origin, count, target);
  };
  if (vectors.wide) mix_blocks<double>(vectors, output, nans, threads, into);
  else mix_blocks<float>(vectors, output, nans, threads, into);
}

}  // namespace surprisal
