// The loops of column_information over eight lanes, compiled once for each instruction set. Written with the compiler's
// vectors and without fused operations, so that every level gives the same bits.
#include <math.h>
#include <string.h>

#include "column_information.hpp"

namespace surprisal {
namespace {

typedef double D8 __attribute__((vector_size(64)));
typedef int64_t L8 __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) void load8(const double* p, D8& v) { memcpy(&v, p, 64); }
static inline __attribute__((always_inline)) void store8(double* p, const D8& v) { memcpy(p, &v, 64); }

// Natural logarithm of positive normal numbers: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m-1)/(m+1)).
static inline __attribute__((always_inline)) void log8(const D8& x, D8& y) {
  L8 bits;
  memcpy(&bits, &x, 64);
  const L8 shifted = bits + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd);
  // The exponent as a double without a conversion: 2^52 + (e + 1023), less 2^52 + 1023.
  const L8 exponent_bits = ((shifted >> 52) & 0xfff) | 0x4330000000000000;
  D8 exponent;
  memcpy(&exponent, &exponent_bits, 64);
  exponent = exponent - 4503599627371519.0;
  const L8 mantissa_bits = (shifted & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd;
  D8 m;
  memcpy(&m, &mantissa_bits, 64);
  const D8 s = (m - 1.0) / (m + 1.0);
  const D8 z = s * s;
  D8 p = z * (1.0 / 23) + (1.0 / 21);
  p = p * z + (1.0 / 19);
  p = p * z + (1.0 / 17);
  p = p * z + (1.0 / 15);
  p = p * z + (1.0 / 13);
  p = p * z + (1.0 / 11);
  p = p * z + (1.0 / 9);
  p = p * z + (1.0 / 7);
  p = p * z + (1.0 / 5);
  p = p * z + (1.0 / 3);
  const D8 twice = s + s;
  y = exponent * 1.9082149292705877e-10 + (twice * (p * z) + twice) + exponent * 0.693147180369123816490;
}

// All of the kernel's rows in one block of columns follow each other, so that each is loaded once: row t of the result
// takes kernel row t of the upper two masses and row t - 1 of the lower two.
void stamp(const Stamp* stamps, int64_t count, const StampKernel& kernel, double* density, int64_t stride) {
  const D8 zero = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int64_t i = 0; i < count; i++) {
    const Stamp& s = stamps[i];
    const D8 a = zero + s.mass[0];
    const D8 b = zero + s.mass[1];
    const D8 c = zero + s.mass[2];
    const D8 d = zero + s.mass[3];
    for (int64_t k = 0; k < kernel.blocks; k++) {
      const int64_t reach = kernel.reach[k];
      if (reach < 0) continue;
      const int64_t column = k * kLanes - kernel.columns;
      const double* values = kernel.values + (kernel.rows - reach) * kernel.stride + k * kLanes + kLanes;
      double* out = density + (s.row - reach) * stride + s.column + column;
      D8 sum, upper, upper_left;
      D8 lower = zero;
      D8 lower_left = zero;
      for (int64_t t = -reach; t <= reach; t++) {
        load8(out, sum);
        load8(values, upper);
        load8(values - 1, upper_left);
        sum = sum + ((a * upper + b * upper_left) + (c * lower + d * lower_left));
        store8(out, sum);
        lower = upper;
        lower_left = upper_left;
        values += kernel.stride;
        out += stride;
      }
      load8(out, sum);
      sum = sum + (c * lower + d * lower_left);
      store8(out, sum);
    }
  }
}

static inline double sum_of_lanes(const D8& v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

void fold(const double* density, int64_t rows, int64_t columns, int64_t stride, double* marginal, double* total,
          double* sum) {
  const D8 least = {2.3e-308, 2.3e-308, 2.3e-308, 2.3e-308, 2.3e-308, 2.3e-308, 2.3e-308, 2.3e-308};
  double all = 0;
  double result = 0;
  for (int64_t r = 0; r < rows; r++) {
    const double* row = density + r * stride;
    D8 mass = {0, 0, 0, 0, 0, 0, 0, 0};
    D8 products = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int64_t c = 0; c < columns; c += kLanes) {
      D8 v, column, logarithm;
      load8(row + c, v);
      load8(marginal + c, column);
      store8(marginal + c, column + v);
      mass = mass + v;
      const L8 positive = v > least;
      L8 chosen;
      {
        L8 vb, lb;
        memcpy(&vb, &v, 64);
        memcpy(&lb, &least, 64);
        chosen = (vb & positive) | (lb & ~positive);
      }
      D8 safe;
      memcpy(&safe, &chosen, 64);
      log8(safe, logarithm);
      products = products + v * logarithm;
    }
    const double row_mass = sum_of_lanes(mass);
    if (!(row_mass > 0)) continue;
    all += row_mass;
    result += sum_of_lanes(products) - row_mass * log(row_mass);
  }
  *total = all;
  *sum = result;
}

}  // namespace
}  // namespace surprisal
