// Candidates of a scale lie in the lanes of vectors: each sums its own terms in the order of the weights, so that every
// width, and the TypeScript reference, give the same bits. Included once for each instruction set.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "ggml_encode.hpp"
#include "half.hpp"
#include "narrow.hpp"

namespace surprisal {
namespace {

constexpr int kBlock = 256;
constexpr int kOffsets = 20;
constexpr double kFirstOffset = -1;
constexpr double kOffsetStep = 0.25;
constexpr int kRefits = 2;
constexpr int kRounds = 3;

static inline double nearest(double value) { return floor(value + 0.5); }
static inline double clamp(double value, double low, double high) {
  return value < low ? low : value > high ? high : value;
}
static inline double halved(double value) {
  return float_of_half(half_of_float(static_cast<float>(value)));
}
static inline double inverse_of(double scale) { return scale == 0 ? 0 : 1 / scale; }

static inline double put_half(uint8_t* target, double value) {
  const uint16_t bits = half_of_float(static_cast<float>(value));
  target[0] = static_cast<uint8_t>(bits & 255);
  target[1] = static_cast<uint8_t>(bits >> 8);
  return float_of_half(bits);
}

struct Group {
  const double* x;
  const double* w;
  int count;
};

static inline double extreme(const Group& group) {
  double found = 0;
  for (int i = 0; i < group.count; i++) {
    if (fabs(group.x[i]) > fabs(found)) found = group.x[i];
  }
  return found;
}

// Sums of w x v and w v^2 of kLanes candidates, v = value(x / scale).
template <int kLanes, class Value>
static inline void propose(const Group& group, const double* inverse, double* products, double* squares, Value value) {
  for (int c = 0; c < kLanes; c++) products[c] = squares[c] = 0;
  for (int i = 0; i < group.count; i++) {
    const double x = group.x[i], w = group.w[i], wx = w * x;
    for (int c = 0; c < kLanes; c++) {
      const double v = value(x * inverse[c]);
      products[c] += wx * v;
      squares[c] += w * v * v;
    }
  }
}

// The best of the candidates, then least squares on the codes of the best, again and again.
template <int kLanes, class Value>
static inline double best_scale(const Group& group, const double* scales, int count, Value value) {
  double inverse[kLanes], products[kLanes], squares[kLanes];
  for (int c = 0; c < kLanes; c++) inverse[c] = c < count ? 1 / scales[c] : 0;
  propose<kLanes>(group, inverse, products, squares, value);
  double best = 0, most = 0;
  for (int c = 0; c < count; c++) {
    if (squares[c] > 0 && products[c] * products[c] > most * squares[c]) {
      most = products[c] * products[c] / squares[c];
      best = products[c] / squares[c];
    }
  }
  for (int pass = 0; pass < kRefits && best != 0; pass++) {
    const double own = 1 / best;
    double product, square;
    propose<1>(group, &own, &product, &square, value);
    if (square > 0 && product * product > most * square) {
      most = product * product / square;
      best = product / square;
    }
  }
  return best;
}

static inline double search_scale(const Group& group, double low, double high) {
  const double peak = extreme(group);
  if (peak == 0) return 0;
  double scales[2 * kOffsets];
  int count = 0;
  for (int c = 0; c < kOffsets; c++) {
    const double offset = kFirstOffset + kOffsetStep * c;
    scales[count++] = peak / (low - offset);
    if (high + offset > 0) scales[count++] = peak / (high + offset);
  }
  return best_scale<2 * kOffsets>(group, scales, count,
                                  [=](double scaled) { return clamp(nearest(scaled), low, high); });
}

struct Affine {
  double scale;
  double offset;
};

struct AffineSums {
  double codes[kOffsets], squares[kOffsets], products[kOffsets];
  double total, sum;
};

template <int kLanes>
static inline void propose_affine(const Group& group, const double* inverse, double offset, double high,
                                  AffineSums& sums) {
  for (int c = 0; c < kLanes; c++) sums.codes[c] = sums.squares[c] = sums.products[c] = 0;
  sums.total = sums.sum = 0;
  for (int i = 0; i < group.count; i++) {
    const double x = group.x[i], w = group.w[i], rest = x - offset;
    sums.total += w;
    sums.sum += w * x;
    for (int c = 0; c < kLanes; c++) {
      const double code = clamp(nearest(rest * inverse[c]), 0, high);
      const double weighted = w * code;
      sums.codes[c] += weighted;
      sums.squares[c] += weighted * code;
      sums.products[c] += weighted * x;
    }
  }
}

static inline void accept_affine(const AffineSums& sums, int c, bool non_positive, double& most, Affine& result) {
  const double total = sums.total, sum = sums.sum;
  const double codes = sums.codes[c], squares = sums.squares[c], products = sums.products[c];
  const double determinant = total * squares - codes * codes;
  if (!(determinant > 0)) return;
  double s = (total * products - codes * sum) / determinant;
  double o = (squares * sum - codes * products) / determinant;
  if (non_positive && o > 0) {
    o = 0;
    s = products / squares;
  }
  if (!(s > 0)) return;
  const double gain = 2 * (s * products + o * sum) - (s * s * squares + 2 * s * o * codes + o * o * total);
  if (gain > most) {
    most = gain;
    result.scale = s;
    result.offset = o;
  }
}

static inline Affine search_affine(const Group& group, double high, bool non_positive) {
  double low = non_positive ? 0 : group.x[0];
  double top = group.x[0];
  for (int i = 0; i < group.count; i++) {
    if (group.x[i] < low) low = group.x[i];
    if (group.x[i] > top) top = group.x[i];
  }
  Affine result = {0, low};
  if (top <= low) return result;
  double inverse[kOffsets];
  int count = 0;
  for (int c = 0; c < kOffsets; c++) {
    const double steps = high + kFirstOffset + kOffsetStep * c;
    if (steps > 0) inverse[count++] = 1 / ((top - low) / steps);
  }
  for (int c = count; c < kOffsets; c++) inverse[c] = 0;
  AffineSums sums;
  propose_affine<kOffsets>(group, inverse, low, high, sums);
  double most = -INFINITY;
  for (int c = 0; c < count; c++) accept_affine(sums, c, non_positive, most, result);
  for (int pass = 0; pass < kRefits && result.scale > 0; pass++) {
    const double own = 1 / result.scale;
    propose_affine<1>(group, &own, result.offset, high, sums);
    accept_affine(sums, 0, non_positive, most, result);
  }
  return result;
}

constexpr double kTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static inline double table_middle(int j) { return (kTable[j] + kTable[j + 1]) / 2; }

static inline int table_index(double value) {
  int index = 0;
  while (index < 15 && value > table_middle(index)) index++;
  return index;
}

static inline double table_level(double value) {
  double level = kTable[0];
  for (int j = 0; j < 15; j++) level += value > table_middle(j) ? kTable[j + 1] - kTable[j] : 0;
  return level;
}

static inline double search_table_scale(const Group& group) {
  const double peak = extreme(group);
  if (peak == 0) return 0;
  const double step = (kTable[15] - kTable[0]) / 15;
  double scales[2 * kOffsets];
  for (int c = 0; c < kOffsets; c++) {
    const double offset = step * (kFirstOffset + kOffsetStep * c);
    scales[2 * c] = peak / (kTable[0] - offset);
    scales[2 * c + 1] = peak / (kTable[15] + offset);
  }
  return best_scale<2 * kOffsets>(group, scales, 2 * kOffsets, [](double scaled) { return table_level(scaled); });
}

static inline void put_nibble(uint8_t* target, int i, int code) {
  target[i & 15] |= static_cast<uint8_t>(code << (i < 16 ? 0 : 4));
}
static inline void put_fifth(uint8_t* target, int i, int code) {
  target[i >> 3] |= static_cast<uint8_t>((code >> 4) << (i & 7));
}

static void encode_q8_0(const double* x, const double* w, uint8_t* target) {
  const double inverse = inverse_of(put_half(target, search_scale({x, w, 32}, -128, 127)));
  for (int i = 0; i < 32; i++) {
    target[2 + i] = static_cast<uint8_t>(static_cast<int>(clamp(nearest(x[i] * inverse), -128, 127)));
  }
}

static void encode_q4_0(const double* x, const double* w, uint8_t* target) {
  const double inverse = inverse_of(put_half(target, search_scale({x, w, 32}, -8, 7)));
  for (int i = 0; i < 32; i++) put_nibble(target + 2, i, static_cast<int>(clamp(nearest(x[i] * inverse), -8, 7)) + 8);
}

static void encode_q5_0(const double* x, const double* w, uint8_t* target) {
  const double inverse = inverse_of(put_half(target, search_scale({x, w, 32}, -16, 15)));
  for (int i = 0; i < 32; i++) {
    const int code = static_cast<int>(clamp(nearest(x[i] * inverse), -16, 15)) + 16;
    put_nibble(target + 6, i, code & 15);
    put_fifth(target + 2, i, code);
  }
}

static void encode_q4_1(const double* x, const double* w, uint8_t* target) {
  const Affine found = search_affine({x, w, 32}, 15, false);
  const double inverse = inverse_of(put_half(target, found.scale));
  const double offset = put_half(target + 2, found.offset);
  for (int i = 0; i < 32; i++) {
    put_nibble(target + 4, i, static_cast<int>(clamp(nearest((x[i] - offset) * inverse), 0, 15)));
  }
}

static void encode_q5_1(const double* x, const double* w, uint8_t* target) {
  const Affine found = search_affine({x, w, 32}, 31, false);
  const double inverse = inverse_of(put_half(target, found.scale));
  const double offset = put_half(target + 2, found.offset);
  for (int i = 0; i < 32; i++) {
    const int code = static_cast<int>(clamp(nearest((x[i] - offset) * inverse), 0, 31));
    put_nibble(target + 8, i, code & 15);
    put_fifth(target + 4, i, code);
  }
}

static void encode_iq4_nl(const double* x, const double* w, uint8_t* target) {
  const double inverse = inverse_of(put_half(target, search_table_scale({x, w, 32})));
  for (int i = 0; i < 32; i++) put_nibble(target + 2, i, table_index(x[i] * inverse));
}

// A super-block before it is packed.
struct SuperBlock {
  double d, dmin, error;
  int scales[16], minima[16], codes[kBlock];
};

// Weighted squared errors of a group under kLanes scales and offsets, with the nearest codes in low..high.
template <int kLanes>
static inline void group_errors(const Group& group, const double* scale, const double* offset, double low, double high,
                                double* error) {
  double inverse[kLanes];
  for (int c = 0; c < kLanes; c++) {
    inverse[c] = inverse_of(scale[c]);
    error[c] = 0;
  }
  for (int i = 0; i < group.count; i++) {
    const double x = group.x[i], w = group.w[i];
    for (int c = 0; c < kLanes; c++) {
      const double rest = x - offset[c];
      const double d = rest - scale[c] * clamp(nearest(rest * inverse[c]), low, high);
      error[c] += w * d * d;
    }
  }
}

static inline void write_codes(const Group& group, double scale, double offset, double low, double high, int* codes) {
  const double inverse = inverse_of(scale);
  for (int i = 0; i < group.count; i++) {
    codes[i] = static_cast<int>(clamp(nearest((group.x[i] - offset) * inverse), low, high));
  }
}

struct Range {
  int low, high;
};

static void assign_symmetric(SuperBlock& block, const double* x, const double* w, int count, const double* ideal,
                             Range code, Range scale) {
  block.error = 0;
  const double inverse = inverse_of(block.d);
  for (int g = 0; g < kBlock / count; g++) {
    const Group group = {x + g * count, w + g * count, count};
    const int centre = static_cast<int>(clamp(nearest(ideal[g] * inverse), scale.low, scale.high));
    double tried[4], offsets[4] = {0, 0, 0, 0}, errors[4];
    for (int step = 0; step < 4; step++) tried[step] = block.d * (centre - 1 + (step < 3 ? step : 1));
    group_errors<4>(group, tried, offsets, code.low, code.high, errors);
    int chosen = centre;
    double least = INFINITY;
    for (int step = 0; step < 3; step++) {
      const int integer = centre - 1 + step;
      if (integer < scale.low || integer > scale.high) continue;
      if (errors[step] < least) {
        least = errors[step];
        chosen = integer;
      }
    }
    block.scales[g] = chosen;
    block.error += least;
    write_codes(group, block.d * chosen, 0, code.low, code.high, block.codes + g * count);
  }
}

static double refit_symmetric(const SuperBlock& block, const double* x, const double* w, int count) {
  double products = 0, squares = 0;
  for (int i = 0; i < kBlock; i++) {
    const double unit = static_cast<double>(block.scales[i / count]) * block.codes[i];
    products += w[i] * x[i] * unit;
    squares += w[i] * unit * unit;
  }
  return squares > 0 ? products / squares : 0;
}

static void fit_symmetric(SuperBlock& best, const double* x, const double* w, int count, Range code, Range scale) {
  double found[16];
  double largest = 0;
  for (int g = 0; g < kBlock / count; g++) {
    found[g] = search_scale({x + g * count, w + g * count, count}, code.low, code.high);
    if (fabs(found[g]) > fabs(largest)) largest = found[g];
  }
  best.error = INFINITY;
  SuperBlock current;
  current.dmin = 0;
  for (int side = 0; side < 2; side++) {
    current.d = halved(largest / (side == 0 ? scale.low : scale.high));
    for (int round = 0; round < kRounds; round++) {
      assign_symmetric(current, x, w, count, found, code, scale);
      if (current.error < best.error) {
        best = current;
      } else if (round > 0) {
        break;
      }
      current.d = halved(refit_symmetric(current, x, w, count));
    }
  }
}

static void assign_affine(SuperBlock& block, const double* x, const double* w, int count, const Affine* ideal, int high,
                          int most) {
  block.error = 0;
  const double inverse = inverse_of(block.d);
  const double inverse_min = inverse_of(block.dmin);
  for (int g = 0; g < kBlock / count; g++) {
    const Group group = {x + g * count, w + g * count, count};
    const int scale_centre = static_cast<int>(clamp(nearest(ideal[g].scale * inverse), 0, most));
    const int min_centre = static_cast<int>(clamp(nearest(-ideal[g].offset * inverse_min), 0, most));
    double scales[12], offsets[12], errors[12];
    for (int k = 0; k < 12; k++) {
      const int step = k < 9 ? k : 4;
      scales[k] = block.d * (scale_centre - 1 + step / 3);
      offsets[k] = -block.dmin * (min_centre - 1 + step % 3);
    }
    group_errors<12>(group, scales, offsets, 0, high, errors);
    int chosen_scale = scale_centre, chosen_min = min_centre;
    double least = INFINITY;
    for (int k = 0; k < 9; k++) {
      const int s = scale_centre - 1 + k / 3, m = min_centre - 1 + k % 3;
      if (s < 0 || s > most || m < 0 || m > most) continue;
      if (errors[k] < least) {
        least = errors[k];
        chosen_scale = s;
        chosen_min = m;
      }
    }
    block.scales[g] = chosen_scale;
    block.minima[g] = chosen_min;
    block.error += least;
    write_codes(group, block.d * chosen_scale, -block.dmin * chosen_min, 0, high, block.codes + g * count);
  }
}

// Least squares of x = d a - dmin b, a integer scales times codes, b integer minima.
static void refit_affine(SuperBlock& block, const double* x, const double* w, int count) {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
  for (int i = 0; i < kBlock; i++) {
    const int g = i / count;
    const double a = static_cast<double>(block.scales[g]) * block.codes[i];
    const double b = block.minima[g];
    aa += w[i] * a * a;
    ab += w[i] * a * b;
    bb += w[i] * b * b;
    ax += w[i] * a * x[i];
    bx += w[i] * b * x[i];
  }
  const double determinant = aa * bb - ab * ab;
  double d = determinant > 0 ? (ax * bb - bx * ab) / determinant : 0;
  double dmin = determinant > 0 ? (ax * ab - bx * aa) / determinant : 0;
  if (!(determinant > 0) || dmin < 0) {
    dmin = 0;
    d = aa > 0 ? ax / aa : 0;
  }
  block.d = halved(d > 0 ? d : 0);
  block.dmin = halved(dmin);
}

static void fit_affine(SuperBlock& best, const double* x, const double* w, int count, int high, int most) {
  Affine found[16];
  double largest = 0, deepest = 0;
  for (int g = 0; g < kBlock / count; g++) {
    found[g] = search_affine({x + g * count, w + g * count, count}, high, true);
    if (found[g].scale > largest) largest = found[g].scale;
    if (-found[g].offset > deepest) deepest = -found[g].offset;
  }
  best.error = INFINITY;
  SuperBlock current;
  current.d = halved(largest / most);
  current.dmin = halved(deepest / most);
  for (int round = 0; round < kRounds; round++) {
    assign_affine(current, x, w, count, found, high, most);
    if (!(current.error < best.error)) break;
    best = current;
    refit_affine(current, x, w, count);
  }
}

static void encode_q2_k(const double* x, const double* w, uint8_t* target) {
  SuperBlock best;
  fit_affine(best, x, w, 16, 3, 15);
  for (int g = 0; g < 16; g++) target[g] = static_cast<uint8_t>(best.scales[g] | (best.minima[g] << 4));
  for (int i = 0; i < kBlock; i++) {
    target[16 + (i >> 7) * 32 + (i & 31)] |= static_cast<uint8_t>(best.codes[i] << (2 * ((i >> 5) & 3)));
  }
  put_half(target + 80, best.d);
  put_half(target + 82, best.dmin);
}

static void encode_q3_k(const double* x, const double* w, uint8_t* target) {
  SuperBlock best;
  fit_symmetric(best, x, w, 16, {-4, 3}, {-32, 31});
  for (int i = 0; i < kBlock; i++) {
    const int code = best.codes[i] + 4;
    target[i & 31] |= static_cast<uint8_t>((code >> 2) << (i >> 5));
    target[32 + (i >> 7) * 32 + (i & 31)] |= static_cast<uint8_t>((code & 3) << (2 * ((i >> 5) & 3)));
  }
  for (int g = 0; g < 16; g++) {
    const int scale = best.scales[g] + 32;
    target[96 + (g & 7)] |= static_cast<uint8_t>((scale & 15) << (g < 8 ? 0 : 4));
    target[104 + (g & 3)] |= static_cast<uint8_t>((scale >> 4) << (2 * (g >> 2)));
  }
  put_half(target + 108, best.d);
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes.
static void put_group_scales(uint8_t* target, const SuperBlock& block) {
  for (int g = 0; g < 8; g++) {
    const int scale = block.scales[g], minimum = block.minima[g];
    if (g < 4) {
      target[g] |= static_cast<uint8_t>(scale);
      target[g + 4] |= static_cast<uint8_t>(minimum);
    } else {
      target[g + 4] = static_cast<uint8_t>((scale & 15) | ((minimum & 15) << 4));
      target[g - 4] |= static_cast<uint8_t>((scale >> 4) << 6);
      target[g] |= static_cast<uint8_t>((minimum >> 4) << 6);
    }
  }
}

static void encode_q4_k(const double* x, const double* w, uint8_t* target) {
  SuperBlock best;
  fit_affine(best, x, w, 32, 15, 63);
  put_half(target, best.d);
  put_half(target + 2, best.dmin);
  put_group_scales(target + 4, best);
  for (int i = 0; i < kBlock; i++) {
    target[16 + (i >> 6) * 32 + (i & 31)] |= static_cast<uint8_t>(best.codes[i] << (4 * ((i >> 5) & 1)));
  }
}

static void encode_q5_k(const double* x, const double* w, uint8_t* target) {
  SuperBlock best;
  fit_affine(best, x, w, 32, 31, 63);
  put_half(target, best.d);
  put_half(target + 2, best.dmin);
  put_group_scales(target + 4, best);
  for (int i = 0; i < kBlock; i++) {
    target[16 + (i & 31)] |= static_cast<uint8_t>((best.codes[i] >> 4) << (i >> 5));
    target[48 + (i >> 6) * 32 + (i & 31)] |= static_cast<uint8_t>((best.codes[i] & 15) << (4 * ((i >> 5) & 1)));
  }
}

static void encode_q6_k(const double* x, const double* w, uint8_t* target) {
  SuperBlock best;
  fit_symmetric(best, x, w, 16, {-32, 31}, {-128, 127});
  for (int i = 0; i < kBlock; i++) {
    const int code = best.codes[i] + 32;
    const int half = i >> 7;
    target[half * 64 + (i & 63)] |= static_cast<uint8_t>((code & 15) << (4 * ((i >> 6) & 1)));
    target[128 + half * 32 + (i & 31)] |= static_cast<uint8_t>((code >> 4) << (2 * ((i >> 5) & 3)));
  }
  for (int g = 0; g < 16; g++) target[192 + g] = static_cast<uint8_t>(best.scales[g]);
  put_half(target + 208, best.d);
}

using BlockEncoder = void (*)(const double* x, const double* w, uint8_t* target);

// In the order of GgmlType.
constexpr BlockEncoder kEncoders[kGgmlTypes] = {encode_q8_0, encode_q4_0, encode_q4_1, encode_q5_0,
                                                encode_q5_1, encode_q2_k, encode_q3_k, encode_q4_k,
                                                encode_q5_k, encode_q6_k, encode_iq4_nl};

static void weigh(const GgmlEncodeRequest& request, const double* x, int count, int64_t column, double* w) {
  if (request.by_magnitude) {
    double squares = 0;
    for (int i = 0; i < count; i++) squares += x[i] * x[i];
    const double typical = sqrt(squares / count);
    for (int i = 0; i < count; i++) w[i] = typical + fabs(x[i]);
  } else {
    for (int i = 0; i < count; i++) w[i] = 1;
  }
  if (request.importance != nullptr) {
    for (int i = 0; i < count; i++) w[i] *= request.importance[column + i];
  }
}

static void encode_range(const GgmlEncodeRequest& request, int64_t begin, int64_t end) {
  const GgmlLayout layout = ggml_layout(request.type);
  const int64_t blocks = request.columns / layout.block_elements;
  const BlockEncoder encode = kEncoders[static_cast<int>(request.type)];
  double x[kBlock], w[kBlock];
  for (int64_t b = begin; b < end; b++) {
    const int64_t row = b / blocks, column = (b % blocks) * layout.block_elements;
    const float* source = request.source + row * request.columns + column;
    for (int i = 0; i < layout.block_elements; i++) x[i] = source[i];
    weigh(request, x, layout.block_elements, column, w);
    encode(x, w, request.target + b * layout.block_bytes);
  }
}

}  // namespace
}  // namespace surprisal
