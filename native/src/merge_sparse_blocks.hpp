// Blocks of task vectors, formed for one thread.
#pragma once
#include <math.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "aligned_buffer.hpp"
#include "merge_sparse.hpp"

namespace surprisal {

// What a comparison "at or above" needs so that elements of a block before, or behind, the cut's end are inside.
template <class T>
T inside_limit(const MagnitudeCut& cut, bool before_end) {
  const T value = static_cast<T>(cut.magnitude);
  if (before_end) return value;
  // Nothing is above infinity, and nothing compares with NaN.
  return value == std::numeric_limits<T>::infinity() ? std::numeric_limits<T>::quiet_NaN()
                                                     : std::nextafter(value, std::numeric_limits<T>::infinity());
}

inline bool is_inside(const MagnitudeCut& cut, double magnitude, int64_t index) {
  return magnitude > cut.magnitude || (magnitude == cut.magnitude && static_cast<double>(index) < cut.end);
}

inline bool straddles(const MagnitudeCut& cut, int64_t from, int64_t count) {
  return cut.end > static_cast<double>(from) && cut.end < static_cast<double>(from + count);
}

template <class T>
class TaskBlocks {
 public:
  explicit TaskBlocks(const TaskVectors& vectors)
      : vectors_(vectors),
        loops_(sparse_kernels().of(static_cast<const T*>(nullptr))),
        base_(kSparseBlock),
        blocks_(kSparseBlock * vectors.count),
        pointers_(static_cast<size_t>(vectors.count)) {
    for (int j = 0; j < vectors.count; j++) pointers_[static_cast<size_t>(j)] = block(j);
  }

  const SparseLoops<T>& loops() const { return loops_; }
  T* block(int j) { return blocks_.data() + kSparseBlock * j; }
  const T* const* all() const { return pointers_.data(); }

  // Task vectors of elements [from, from + count); adds the numbers of NaN to `nans` unless that is null.
  void form(int64_t from, int64_t count, int64_t* nans) {
    T* const base = vectors_.base == nullptr ? nullptr : base_.data();
    if (base != nullptr) loops_.load(*vectors_.base, from, count, base);
    for (int j = 0; j < vectors_.count; j++) {
      const int64_t found = loops_.difference(vectors_.models[j], from, count, base, block(j));
      if (nans != nullptr) nans[j] += found;
    }
  }

  // Zeros what does not stay of model j; `from` is a multiple of eight. Returns the number that stay.
  int64_t sparsify(const Sparsity& sparsity, int j, int64_t from, int64_t count) {
    T* const values = block(j);
    const MagnitudeCut& keep = sparsity.keep;
    const MagnitudeCut& drop = sparsity.drop;
    int64_t kept = 0;
    if (straddles(keep, from, count) || straddles(drop, from, count)) {
      for (int64_t i = 0; i < count; i++) {
        const double size = fabs(static_cast<double>(values[i]));
        const int64_t at = from + i;
        const bool stays = is_inside(keep, size, at) && !is_inside(drop, size, at) &&
                           (sparsity.mask == nullptr || (sparsity.mask[at >> 3] >> (at & 7) & 1) != 0);
        if (!stays) values[i] = 0;
        kept += stays;
      }
    } else {
      const double end = static_cast<double>(from + count);
      kept = loops_.sparsify(values, count, inside_limit<T>(keep, end <= keep.end), inside_limit<T>(drop, end <= drop.end),
                             sparsity.mask == nullptr ? nullptr : sparsity.mask + from / 8);
    }
    if (sparsity.probabilities != nullptr) {
      loops_.divide(values, count, static_cast<const T*>(sparsity.probabilities) + from);
    }
    return kept;
  }

 private:
  const TaskVectors& vectors_;
  const SparseLoops<T>& loops_;
  AlignedBuffer<T> base_;
  AlignedBuffer<T> blocks_;
  std::vector<const T*> pointers_;
};

inline int64_t sparse_blocks(int64_t elements) { return (elements + kSparseBlock - 1) / kSparseBlock; }


}  // namespace surprisal
