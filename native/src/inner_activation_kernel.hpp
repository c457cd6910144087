// The activations over a vector class V of vectors_*.hpp; included by one translation unit for each instruction set.
#pragma once
#include <math.h>
#include <string.h>

#include "exp_polynomials.hpp"
#include "inner_activation.hpp"

namespace surprisal {
namespace {

template <class V>
struct ActivationLoops {
  using T = typename V::T;
  using R = typename V::R;
  static constexpr int kWidth = 2 * V::N;
  static constexpr int kDegree = sizeof(T) == 4 ? 6 : 11;

  // x sigmoid(t): t = x is SiLU, and t = 2 sqrt(2/pi) (x + 0.044715 x^3) the tanh form of GELU. The limit keeps e^-t
  // finite; beyond it the result is x e^-limit, no digit of which matters.
  template <bool kTanh>
  static inline __attribute__((always_inline)) void sigmoid_times(R* x) {
    R d[2], e[2];
    for (int k = 0; k < 2; k++) {
      R t = x[k];
      if (kTanh) {
        const R square = t * t;
        t = V::set1(static_cast<T>(1.5957691216057308)) * V::fma(square * t, V::set1(static_cast<T>(0.044715)), t);
      }
      d[k] = V::min(V::set1(0) - t, V::set1(-V::kExpLow < 700 ? 86 : 700));
    }
    V::template exp<2, kDegree>(d, e);
    for (int k = 0; k < 2; k++) x[k] = x[k] / (V::set1(1) + e[k]);
  }

  template <InnerActivation kKind>
  static inline __attribute__((always_inline)) void apply(R* x) {
    if (kKind == InnerActivation::Silu) sigmoid_times<false>(x);
    if (kKind == InnerActivation::GeluTanh) sigmoid_times<true>(x);
    if (kKind == InnerActivation::Relu || kKind == InnerActivation::Relu2) {
      for (int k = 0; k < 2; k++) x[k] = V::choose_above(V::set1(0), x[k], V::set1(0), x[k]);
      if (kKind == InnerActivation::Relu2) {
        for (int k = 0; k < 2; k++) x[k] = x[k] * x[k];
      }
    }
    if (kKind == InnerActivation::Gelu) {
      T values[kWidth];
      for (int k = 0; k < 2; k++) V::store(values + k * V::N, x[k]);
      for (T& v : values) {
        const double wide = static_cast<double>(v);
        v = static_cast<T>(0.5 * wide * ::erfc(-wide * 0.7071067811865476));
      }
      for (int k = 0; k < 2; k++) x[k] = V::load(values + k * V::N);
    }
  }

  template <InnerActivation kKind>
  static inline __attribute__((always_inline)) void step(const T* gate, T* inner) {
    R x[2];
    for (int k = 0; k < 2; k++) x[k] = V::load((gate == nullptr ? inner : gate) + k * V::N);
    apply<kKind>(x);
    for (int k = 0; k < 2; k++) {
      V::store(inner + k * V::N, gate == nullptr ? x[k] : x[k] * V::load(inner + k * V::N));
    }
  }

  template <InnerActivation kKind>
  static void loop(const T* gate, T* inner, int64_t count) {
    int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) step<kKind>(gate == nullptr ? nullptr : gate + i, inner + i);
    if (i == count) return;
    T gates[kWidth] = {}, rest[kWidth] = {};
    const size_t bytes = sizeof(T) * static_cast<size_t>(count - i);
    if (gate != nullptr) memcpy(gates, gate + i, bytes);
    memcpy(rest, inner + i, bytes);
    step<kKind>(gate == nullptr ? nullptr : gates, rest);
    memcpy(inner + i, rest, bytes);
  }

  static void activate(InnerActivation activation, const T* gate, T* inner, int64_t count) {
    switch (activation) {
      case InnerActivation::Silu: return loop<InnerActivation::Silu>(gate, inner, count);
      case InnerActivation::Relu: return loop<InnerActivation::Relu>(gate, inner, count);
      case InnerActivation::Relu2: return loop<InnerActivation::Relu2>(gate, inner, count);
      case InnerActivation::Gelu: return loop<InnerActivation::Gelu>(gate, inner, count);
      case InnerActivation::GeluTanh: return loop<InnerActivation::GeluTanh>(gate, inner, count);
      case InnerActivation::kCount: return;
    }
  }
};

}  // namespace
}  // namespace surprisal
