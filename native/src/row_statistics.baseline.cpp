#include <stdint.h>
#include <string.h>

#include "half.hpp"
#include "row_statistics_kernel.hpp"
#include "vectors_baseline.hpp"

namespace surprisal {
namespace {

struct S64 {
  using V = V64;
  static constexpr int kDegree = 11;
  using E = double;
  static constexpr E kMinusInfinity = -__builtin_inf();
  static double scalar(E e) { return e; }
  static void load2(const E* p, V::R& a, V::R& b) {
    a = V::load(p);
    b = V::load(p + 2);
  }
};

struct S32 {
  using V = V32;
  static constexpr int kDegree = 6;
  using E = float;
  static constexpr E kMinusInfinity = -__builtin_inff();
  static double scalar(E e) { return e; }
  static void load2(const E* p, V::R& a, V::R& b) {
    memcpy(&a, p, 16);
    memcpy(&b, p + 4, 16);
  }
};

struct S16 {
  using V = V32;
  static constexpr int kDegree = 5;
  using E = uint16_t;
  static constexpr E kMinusInfinity = 0xfc00;
  static double scalar(E e) { return float_of_half(e); }
  static void load2(const E* p, V::R& a, V::R& b) {
    float wide[8];
    for (int i = 0; i < 8; i++) wide[i] = float_of_half(p[i]);
    memcpy(&a, wide, 16);
    memcpy(&b, wide + 4, 16);
  }
};

struct SB16 {
  using V = V32;
  static constexpr int kDegree = 5;
  using E = uint16_t;
  static constexpr E kMinusInfinity = 0xff80;
  static double scalar(E e) { return float_of_bfloat(e); }
  static void load2(const E* p, V::R& a, V::R& b) {
    I4 pairs;
    memcpy(&pairs, p, 16);
    const int32_t high = static_cast<int32_t>(0xffff0000u);
    a = (F4)(pairs << 16);
    b = (F4)(pairs & I4{high, high, high, high});
  }
};

}  // namespace

const RowKernels kRowKernelsBaseline = make_row_kernels<S64, S32, S16, SB16>();

}  // namespace surprisal
