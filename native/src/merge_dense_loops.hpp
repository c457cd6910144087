// The loops over lanes of merge_elements.hpp; included by one translation unit for each instruction set. A chunk of each
// input goes through the first cache once: sums over inputs stay there as doubles until they are stored.
#pragma once
#include <algorithm>

#include "aligned_buffer.hpp"
#include "merge_dense.hpp"
#include "merge_elements.hpp"

namespace surprisal {
namespace {

constexpr int64_t kCombineChunk = 1024;
constexpr int64_t kGramChunk = 256;

// What is added for an input: the elements themselves, or their differences from a base chunk.
enum class Read { Plain, Single, Double };

template <DType kType, Read kRead>
static inline D8 term_lanes(const uint8_t* at, const double* base) {
  if constexpr (kRead == Read::Plain) return load_double_lanes<kType>(at);
  if constexpr (kRead == Read::Double) return load_double_lanes<kType>(at) - load_doubles(base);
  if constexpr (kRead == Read::Single && kType != DType::F64) {
    return doubles_of(load_float_lanes<kType>(at) - floats_of(load_doubles(base)));
  }
  return load_doubles(base);
}

template <DType kType, Read kRead>
static inline D8 term_lanes(const uint8_t* at, const double* base, int64_t count) {
  uint8_t padded[64] = {};
  memcpy(padded, at, static_cast<size_t>(count * element_bytes<kType>()));
  return term_lanes<kType, kRead>(padded, base);
}

// sum (+)= c * x over a chunk whose lengths are rounded up to whole lanes; `coefficients` is one or, with kEach, one an
// element.
template <DType kType, Read kRead, bool kFirst, bool kEach>
static void add_terms(const uint8_t* bytes, const double* base, const double* coefficients, int64_t count, double* sum) {
  const D8 one = broadcast(coefficients[0]);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const D8 x = term_lanes<kType, kRead>(bytes + i * element_bytes<kType>(), base + i);
    const D8 term = (kEach ? load_doubles(coefficients + i) : one) * x;
    store_doubles(sum + i, kFirst ? term : load_doubles(sum + i) + term);
  }
  if (i == count) return;
  const D8 x = term_lanes<kType, kRead>(bytes + i * element_bytes<kType>(), base + i, count - i);
  const D8 term = (kEach ? load_doubles(coefficients + i) : one) * x;
  store_doubles(sum + i, kFirst ? term : load_doubles(sum + i) + term);
}

template <Read kRead, bool kFirst, bool kEach>
static void add_terms_of(const StoredElements& input, int64_t from, const double* base, const double* coefficients,
                         int64_t count, double* sum) {
  const uint8_t* bytes = input.bytes + from * dtype_width(input.type);
  switch (input.type) {
    case DType::F64:
      return add_terms<DType::F64, kRead, kFirst, kEach>(bytes, base, coefficients, count, sum);
    case DType::F32:
      return add_terms<DType::F32, kRead, kFirst, kEach>(bytes, base, coefficients, count, sum);
    case DType::F16:
      return add_terms<DType::F16, kRead, kFirst, kEach>(bytes, base, coefficients, count, sum);
    default:
      return add_terms<DType::BF16, kRead, kFirst, kEach>(bytes, base, coefficients, count, sum);
  }
}

template <bool kEach>
static void sum_chunk(const MergeInputs& inputs, int64_t from, int64_t count, const double* coefficients, int64_t stride,
                      double* base, double* sum) {
  if (inputs.relative) load_block(inputs.items[0].bytes, inputs.items[0].type, from, count, base);
  add_terms_of<Read::Plain, true, kEach>(inputs.items[0], from, base, coefficients, count, sum);
  for (int i = 1; i < inputs.count; i++) {
    const double* c = coefficients + i * stride;
    if (!inputs.relative) add_terms_of<Read::Plain, false, kEach>(inputs.items[i], from, base, c, count, sum);
    else if (inputs.wide) add_terms_of<Read::Double, false, kEach>(inputs.items[i], from, base, c, count, sum);
    else add_terms_of<Read::Single, false, kEach>(inputs.items[i], from, base, c, count, sum);
  }
}

static void combine(const MergeInputs& inputs, const double* coefficients, Groups groups, const StoredOutput& output,
                    int64_t begin, int64_t end) {
  alignas(64) double base[kCombineChunk], sum[kCombineChunk];
  const int64_t columns = inputs.columns;
  // Coefficients of one chunk: of rows they are one each where a chunk ends with the row.
  double one[kMostMergeInputs];
  for (int64_t from = begin; from < end;) {
    int64_t count = std::min(kCombineChunk, end - from);
    if (groups == Groups::All) {
      sum_chunk<false>(inputs, from, count, coefficients, 1, base, sum);
    } else if (groups == Groups::Rows) {
      const int64_t row = from / columns;
      count = std::min(count, (row + 1) * columns - from);
      for (int i = 0; i < inputs.count; i++) one[i] = coefficients[i * inputs.rows + row];
      sum_chunk<false>(inputs, from, count, one, 1, base, sum);
    } else {
      const int64_t column = from % columns;
      count = std::min(count, columns - column);
      // Whole lanes are read: a chunk that is none goes through padded coefficients.
      double padded[kMostMergeInputs * 8];
      const int64_t whole = count / 8 * 8;
      if (whole > 0) {
        count = whole;
        sum_chunk<true>(inputs, from, count, coefficients + column, columns, base, sum);
      } else {
        for (int i = 0; i < inputs.count; i++) {
          for (int64_t k = 0; k < 8; k++) padded[8 * i + k] = k < count ? coefficients[i * columns + column + k] : 0;
        }
        sum_chunk<true>(inputs, from, count, padded, 8, base, sum);
      }
    }
    store_block(sum, output.type, from, count, output.bytes);
    from += count;
  }
}

// Chunks of the vectors as doubles, zeros behind the last element up to whole lanes.
struct VectorChunks {
  const MergeInputs& inputs;
  const double* combination;
  double* base;    // [kGramChunk]
  double* values;  // [vectors, kGramChunk]

  void load(int64_t from, int64_t count) const {
    const int64_t padded = (count + 7) / 8 * 8;
    const int first = inputs.relative ? 1 : 0;
    if (inputs.relative) read(inputs.items[0], from, count, padded, base);
    for (int v = 0; v < inputs.vectors(); v++) {
      double* x = values + v * kGramChunk;
      read(inputs.items[first + v], from, count, padded, x);
      if (inputs.relative) subtract(x, padded);
    }
    if (combination != nullptr) combine_values(padded);
  }

  static void read(const StoredElements& input, int64_t from, int64_t count, int64_t padded, double* target) {
    load_block(input.bytes, input.type, from, count, target);
    for (int64_t i = count; i < padded; i++) target[i] = 0;
  }

  void subtract(double* x, int64_t padded) const {
    if (inputs.wide) {
      for (int64_t i = 0; i < padded; i += 8) store_doubles(x + i, load_doubles(x + i) - load_doubles(base + i));
    } else {
      for (int64_t i = 0; i < padded; i += 8) {
        store_doubles(x + i, doubles_of(floats_of(load_doubles(x + i)) - floats_of(load_doubles(base + i))));
      }
    }
  }

  void combine_values(int64_t padded) const {
    for (int64_t i = 0; i < padded; i += 8) {
      D8 sum = broadcast(combination[0]) * load_doubles(values + i);
      for (int v = 1; v < inputs.vectors(); v++) {
        sum = sum + broadcast(combination[v]) * load_doubles(values + v * kGramChunk + i);
      }
      store_doubles(values + i, sum);
    }
  }
};

// lanes[pair] += x_i x_j over a chunk of whole lanes.
static inline void add_products(const double* x, int vectors, int64_t padded, double* lanes) {
  for (int i = 0; i < vectors; i++) {
    const double* a = x + i * kGramChunk;
    int j = i;
    // Four sums at a time hide the latency of the additions; each keeps its own order.
    for (; j + 4 <= vectors; j += 4) {
      const double* b = x + j * kGramChunk;
      D8 sum0 = load_doubles(lanes), sum1 = load_doubles(lanes + 8);
      D8 sum2 = load_doubles(lanes + 16), sum3 = load_doubles(lanes + 24);
      for (int64_t k = 0; k < padded; k += 8) {
        const D8 value = load_doubles(a + k);
        sum0 = sum0 + value * load_doubles(b + k);
        sum1 = sum1 + value * load_doubles(b + kGramChunk + k);
        sum2 = sum2 + value * load_doubles(b + 2 * kGramChunk + k);
        sum3 = sum3 + value * load_doubles(b + 3 * kGramChunk + k);
      }
      store_doubles(lanes, sum0);
      store_doubles(lanes + 8, sum1);
      store_doubles(lanes + 16, sum2);
      store_doubles(lanes + 24, sum3);
      lanes += 32;
    }
    for (; j < vectors; j++, lanes += 8) {
      const double* b = x + j * kGramChunk;
      D8 sum = load_doubles(lanes);
      for (int64_t k = 0; k < padded; k += 8) sum = sum + load_doubles(a + k) * load_doubles(b + k);
      store_doubles(lanes, sum);
    }
  }
}

static inline double sum_of_lanes(const double* lanes) {
  const double a = lanes[0] + lanes[4], b = lanes[1] + lanes[5], c = lanes[2] + lanes[6], d = lanes[3] + lanes[7];
  return (a + c) + (b + d);
}

// The commonest case, two plain vectors of one type: nothing but registers between bytes and sums.
template <DType kType>
static void gram_of_two(const uint8_t* a, const uint8_t* b, int64_t count, double* target) {
  D8 sum0 = broadcast(0), sum1 = broadcast(0), sum2 = broadcast(0);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const D8 x = load_double_lanes<kType>(a + i * element_bytes<kType>());
    const D8 y = load_double_lanes<kType>(b + i * element_bytes<kType>());
    sum0 = sum0 + x * x;
    sum1 = sum1 + x * y;
    sum2 = sum2 + y * y;
  }
  if (i < count) {
    const D8 x = load_double_lanes<kType>(a + i * element_bytes<kType>(), count - i);
    const D8 y = load_double_lanes<kType>(b + i * element_bytes<kType>(), count - i);
    sum0 = sum0 + x * x;
    sum1 = sum1 + x * y;
    sum2 = sum2 + y * y;
  }
  double lanes[24];
  store_doubles(lanes, sum0);
  store_doubles(lanes + 8, sum1);
  store_doubles(lanes + 16, sum2);
  for (int pair = 0; pair < 3; pair++) target[pair] = sum_of_lanes(lanes + 8 * pair);
}

static bool gram_is_of_two(const MergeInputs& inputs, int64_t begin, int64_t end, double* target) {
  const StoredElements &a = inputs.items[0], &b = inputs.items[1];
  if (inputs.relative || inputs.count != 2 || a.type != b.type) return false;
  const int64_t offset = begin * dtype_width(a.type);
  switch (a.type) {
    case DType::F64:
      gram_of_two<DType::F64>(a.bytes + offset, b.bytes + offset, end - begin, target);
      return true;
    case DType::F32:
      gram_of_two<DType::F32>(a.bytes + offset, b.bytes + offset, end - begin, target);
      return true;
    case DType::F16:
      gram_of_two<DType::F16>(a.bytes + offset, b.bytes + offset, end - begin, target);
      return true;
    default:
      gram_of_two<DType::BF16>(a.bytes + offset, b.bytes + offset, end - begin, target);
      return true;
  }
}

static void gram(const MergeInputs& inputs, const double* combination, int64_t begin, int64_t end, double* target) {
  if (combination == nullptr && gram_is_of_two(inputs, begin, end, target)) return;
  const int vectors = combination == nullptr ? inputs.vectors() : 1;
  const int pairs = combination == nullptr ? inputs.pairs() : 1;
  AlignedBuffer<double> buffer(kGramChunk * (1 + inputs.vectors()) + 8 * pairs);
  double* const base = buffer.data();
  double* const values = base + kGramChunk;
  double* const lanes = values + inputs.vectors() * kGramChunk;
  const VectorChunks chunks{inputs, combination, base, values};
  memset(lanes, 0, sizeof(double) * 8 * static_cast<size_t>(pairs));
  for (int64_t from = begin; from < end; from += kGramChunk) {
    const int64_t count = std::min(kGramChunk, end - from);
    chunks.load(from, count);
    add_products(values, vectors, (count + 7) / 8 * 8, lanes);
  }
  for (int pair = 0; pair < pairs; pair++) target[pair] = sum_of_lanes(lanes + 8 * pair);
}

static void gram_columns(const MergeInputs& inputs, int64_t begin, int64_t end, double* target) {
  const int vectors = inputs.vectors(), pairs = inputs.pairs();
  AlignedBuffer<double> buffer(kGramChunk * (1 + vectors + pairs));
  double* const base = buffer.data();
  double* const values = base + kGramChunk;
  double* const sums = values + vectors * kGramChunk;
  const VectorChunks chunks{inputs, nullptr, base, values};
  for (int64_t first = begin; first < end; first += kGramChunk) {
    const int64_t count = std::min(kGramChunk, end - first);
    const int64_t padded = (count + 7) / 8 * 8;
    memset(sums, 0, sizeof(double) * static_cast<size_t>(pairs * kGramChunk));
    for (int64_t row = 0; row < inputs.rows; row++) {
      chunks.load(row * inputs.columns + first, count);
      double* sum = sums;
      for (int i = 0; i < vectors; i++) {
        for (int j = i; j < vectors; j++, sum += kGramChunk) {
          const double *a = values + i * kGramChunk, *b = values + j * kGramChunk;
          for (int64_t k = 0; k < padded; k += 8) {
            store_doubles(sum + k, load_doubles(sum + k) + load_doubles(a + k) * load_doubles(b + k));
          }
        }
      }
    }
    for (int64_t k = 0; k < count; k++) {
      for (int pair = 0; pair < pairs; pair++) target[(first + k) * pairs + pair] = sums[pair * kGramChunk + k];
    }
  }
}

static inline D8 mix_near(D8 x, D8 y, D8 distance, D8 t) {
  const D8 wanted = t / largest(magnitude(distance), broadcast(1e-6));
  // NaN counts as 0 here, and comes back through the products.
  const D8 part = largest(smallest(wanted, broadcast(1)), broadcast(0));
  return part * y + (broadcast(1) - part) * x;
}

static void swap_near_range(const StoredElements& a, const StoredElements& b, bool wide, double t,
                            const StoredOutput& output, int64_t begin, int64_t end) {
  alignas(64) double x[kCombineChunk], y[kCombineChunk];
  const D8 distance = broadcast(t);
  for (int64_t from = begin; from < end; from += kCombineChunk) {
    const int64_t count = std::min(kCombineChunk, end - from);
    load_block(a.bytes, a.type, from, count, x);
    load_block(b.bytes, b.type, from, count, y);
    for (int64_t i = count; i < (count + 7) / 8 * 8; i++) x[i] = y[i] = 0;
    for (int64_t i = 0; i < count; i += 8) {
      const D8 p = load_doubles(x + i), q = load_doubles(y + i);
      const D8 apart = wide ? p - q : doubles_of(floats_of(p) - floats_of(q));
      store_doubles(x + i, mix_near(p, q, apart, distance));
    }
    store_block(x, output.type, from, count, output.bytes);
  }
}

constexpr MergeDenseKernels kMergeDenseLoops = {combine, gram, gram_columns, swap_near_range};

}  // namespace
}  // namespace surprisal
