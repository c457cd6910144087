// e^r on |r| <= ln(2)/2 as 1 + r + r^2 q(r), q by the Remez exchange for the relative error of the whole.
#pragma once

namespace surprisal {
namespace {

constexpr double kLog2e = 1.4426950408889634;

// ln 2 in one part serves a fused multiply-add: the error is 1.9e-9 n. Without one, n times the first of two parts is
// exact.
constexpr float kLn2Single32 = 0.693147182464599609375f;
constexpr float kLn2High32 = 0.693359375f;
constexpr float kLn2Low32 = -2.12194440e-4f;

// Degree 6 in all, error 3.1e-9 before rounding; degree 5, error 1.0e-7, for inputs of 16 bits.
constexpr float kExp32Degree6[5] = {0.4999999403953552f, 0.1666652113199234f, 0.04166838899254799f, 0.008368716575205326f,
                                    0.001381459878757596f};
constexpr float kExp32Degree5[4] = {0.499992311000824f, 0.16667114198207855f, 0.04189015552401543f,
                                    0.008312520571053028f};

// Degree 11 in all, error 3.6e-18 before rounding.
constexpr double kLn2High64 = 0x1.62e42feep-1;
constexpr double kLn2Low64 = 0x1.a39ef35793c76p-33;
constexpr double kExp64[10] = {0x1.000000000000ap-1,  0x1.55555555554fap-3,  0x1.555555555087cp-5,
                               0x1.1111111127be5p-7,  0x1.6c16c1842a11dp-10, 0x1.a01a012a57b51p-13,
                               0x1.a0199a0c677acp-16, 0x1.71df2552390c2p-19, 0x1.28ad72cc30daap-22,
                               0x1.ad7f6f0799ee2p-26};

// Adding and subtracting these rounds to the nearest integer, which is left in the low bits.
constexpr float kRound32 = 12582912.0f;
constexpr double kRound64 = 6755399441055744.0;

// e = polynomial(r) for kCount registers, stage by stage.
template <class R, int kCount, int kDegree, class Set, class Fma>
static inline __attribute__((always_inline)) void polynomial_32(const R* r, R* e, Set set1, Fma fma) {
  static_assert(kDegree == 5 || kDegree == 6, "coefficients are given for these");
  const float* c = kDegree == 6 ? kExp32Degree6 : kExp32Degree5;
  for (int k = 0; k < kCount; k++) e[k] = fma(r[k], set1(c[kDegree - 2]), set1(c[kDegree - 3]));
  for (int i = kDegree - 4; i >= 0; i--) {
    for (int k = 0; k < kCount; k++) e[k] = fma(r[k], e[k], set1(c[i]));
  }
  for (int i = 0; i < 2; i++) {
    for (int k = 0; k < kCount; k++) e[k] = fma(r[k], e[k], set1(1.0f));
  }
}

template <class R, int kCount, class Set, class Fma>
static inline __attribute__((always_inline)) void polynomial_64(const R* r, R* e, Set set1, Fma fma) {
  for (int k = 0; k < kCount; k++) e[k] = fma(r[k], set1(kExp64[9]), set1(kExp64[8]));
  for (int i = 7; i >= 0; i--) {
    for (int k = 0; k < kCount; k++) e[k] = fma(r[k], e[k], set1(kExp64[i]));
  }
  for (int i = 0; i < 2; i++) {
    for (int k = 0; k < kCount; k++) e[k] = fma(r[k], e[k], set1(1.0));
  }
}

}  // namespace
}  // namespace surprisal
