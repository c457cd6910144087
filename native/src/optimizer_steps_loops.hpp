// The steps over a vector class V of vectors_*.hpp; included by one translation unit for each instruction set. Products
// and sums are rounded one after the other: a fused one would give other bits than processors without it.
#pragma once
#include <string.h>

#include <limits>

#include "optimizer_steps.hpp"

namespace surprisal {
namespace {

template <class V>
struct OptimizerSteps {
  using T = typename V::T;
  using R = typename V::R;
  using Buffers = OptimizerBuffers<T>;
  static constexpr int N = V::N;

  static R set(double v) { return V::set1(static_cast<T>(v)); }

  // Zero in place of subnormals, on which arithmetic is a hundred times slower; x is not negative, or is signed.
  static R flush(R x) { return V::choose_above(V::set1(std::numeric_limits<T>::min()), x, V::set1(0), x); }
  static R flush_signed(R x) {
    return V::choose_above(V::set1(std::numeric_limits<T>::min()), V::max(x, V::set1(0) - x), V::set1(0), x);
  }

  template <bool kCoupled, bool kClear>
  struct Adam {
    R scale, b1, b2, c1, c2, size, root, epsilon, decay;

    Adam(double factor, const AdamSettings& s)
        : scale(set(s.gradient_scale)),
          b1(set(s.beta1)),
          b2(set(s.beta2)),
          c1(set(1 - s.beta1)),
          c2(set(1 - s.beta2)),
          size(set(s.step_size)),
          root(set(s.root_scale)),
          epsilon(set(s.epsilon)),
          decay(set(factor)) {}

    inline __attribute__((always_inline)) void operator()(const Buffers& at) const {
      R p = V::load(at.values);
      R g = V::load(at.gradients) * scale;
      if (kCoupled) g = g + decay * p;
      else p = p * decay;
      const R m = flush_signed(b1 * V::load(at.first) + c1 * g);
      const R v = flush(b2 * V::load(at.second) + c2 * (g * g));
      V::store(at.first, m);
      V::store(at.second, v);
      V::store(at.values, p - (size * m) / (V::sqrt(v) * root + epsilon));
      if (kClear) V::store(at.gradients, V::set1(0));
    }
  };

  template <bool kMomentum, bool kClear>
  struct Momentum {
    R scale, rate, momentum, decay;
    bool nesterov;

    Momentum(double factor, const MomentumSettings& s)
        : scale(set(s.gradient_scale)),
          rate(set(s.learning_rate)),
          momentum(set(s.momentum)),
          decay(set(factor)),
          nesterov(s.nesterov) {}

    inline __attribute__((always_inline)) void operator()(const Buffers& at) const {
      const R p = V::load(at.values);
      const R g = V::load(at.gradients) * scale + decay * p;
      R direction = g;
      if (kMomentum) {
        const R velocity = flush_signed(momentum * V::load(at.first) + g);
        V::store(at.first, velocity);
        direction = nesterov ? g + momentum * velocity : velocity;
      }
      V::store(at.values, p - rate * direction);
      if (kClear) V::store(at.gradients, V::set1(0));
    }
  };

  template <bool kClear>
  struct Lion {
    R scale, rate, b1, b2, c1, c2, decay;

    Lion(double factor, const LionSettings& s)
        : scale(set(s.gradient_scale)),
          rate(set(s.learning_rate)),
          b1(set(s.beta1)),
          b2(set(s.beta2)),
          c1(set(1 - s.beta1)),
          c2(set(1 - s.beta2)),
          decay(set(factor)) {}

    inline __attribute__((always_inline)) void operator()(const Buffers& at) const {
      const R zero = V::set1(0);
      const R g = V::load(at.gradients) * scale;
      const R m = V::load(at.first);
      const R towards = b1 * m + c1 * g;
      // rate times the sign; where there is none, zero or NaN, the product is as good.
      R move = V::choose_above(zero, towards, zero - rate, rate * towards);
      move = V::choose_above(towards, zero, rate, move);
      V::store(at.first, flush_signed(b2 * m + c2 * g));
      V::store(at.values, V::load(at.values) * decay - move);
      if (kClear) V::store(at.gradients, zero);
    }
  };

  // Whole vectors, then what is left through padded copies.
  template <class Step>
  static inline __attribute__((always_inline)) void sweep(const Buffers& buffers, int64_t count, const Step& step) {
    int64_t i = 0;
    for (; i + N <= count; i += N) step(buffers.from(i));
    if (i == count) return;
    T rest[4][N] = {};
    T* const of[4] = {buffers.values, buffers.gradients, buffers.first, buffers.second};
    const size_t bytes = sizeof(T) * static_cast<size_t>(count - i);
    for (int k = 0; k < 4; k++) {
      if (of[k] != nullptr) memcpy(rest[k], of[k] + i, bytes);
    }
    step(Buffers{rest[0], rest[1], rest[2], rest[3]});
    for (int k = 0; k < 4; k++) {
      if (of[k] != nullptr) memcpy(of[k] + i, rest[k], bytes);
    }
  }

  static void adam(const Buffers& buffers, int64_t count, double decay, const AdamSettings& s) {
    if (s.coupled) {
      if (s.clear) sweep(buffers, count, Adam<true, true>(decay, s));
      else sweep(buffers, count, Adam<true, false>(decay, s));
    } else {
      if (s.clear) sweep(buffers, count, Adam<false, true>(decay, s));
      else sweep(buffers, count, Adam<false, false>(decay, s));
    }
  }

  static void momentum(const Buffers& buffers, int64_t count, double decay, const MomentumSettings& s) {
    if (buffers.first != nullptr) {
      if (s.clear) sweep(buffers, count, Momentum<true, true>(decay, s));
      else sweep(buffers, count, Momentum<true, false>(decay, s));
    } else {
      if (s.clear) sweep(buffers, count, Momentum<false, true>(decay, s));
      else sweep(buffers, count, Momentum<false, false>(decay, s));
    }
  }

  static void lion(const Buffers& buffers, int64_t count, double decay, const LionSettings& s) {
    if (s.clear) sweep(buffers, count, Lion<true>(decay, s));
    else sweep(buffers, count, Lion<false>(decay, s));
  }

  static double squares(const T* x, int64_t count) {
    double lanes[kSquaresLanes] = {};
    int64_t i = 0;
    for (; i + kSquaresLanes <= count; i += kSquaresLanes) {
      for (int lane = 0; lane < kSquaresLanes; lane++) {
        const double v = static_cast<double>(x[i + lane]);
        lanes[lane] += v * v;
      }
    }
    for (int lane = 0; i < count; i++, lane++) {
      const double v = static_cast<double>(x[i]);
      lanes[lane] += v * v;
    }
    for (int width = kSquaresLanes / 2; width >= 1; width /= 2) {
      for (int lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
  }

  static constexpr OptimizerLoops<T> kLoops = {adam, momentum, lion, squares};
};

}  // namespace
}  // namespace surprisal
