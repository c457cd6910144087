// e^r on |r| <= ln(2)/2 as 1 + r + r^2 q(r), q by the Remez exchange for the relative error of the whole.
#pragma once

namespace surprisal {
namespace {

constexpr double kLog2e = 1.4426950408889634;

// Degree 6 in all, error 3.1e-9 before rounding. ln 2 in two parts: the first has few enough bits for n * part to be exact.
constexpr float kLn2High32 = 0.693359375f;
constexpr float kLn2Low32 = -2.12194440e-4f;
constexpr float kExp32[5] = {0.4999999403953552f, 0.1666652113199234f, 0.04166838899254799f, 0.008368716575205326f,
                             0.001381459878757596f};

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

}  // namespace
}  // namespace surprisal
