// The modes of the pulse search over a tile, see pulse_search_kernel.hpp.
#pragma once
#include "pulse_search_lanes.hpp"

namespace surprisal {
namespace {

template <bool kWeighted, bool kCapped>
static void greedy(Tile& t, Row* y) {
  const int length = t.length;
  Row left;
  for (int k = 0; k < kUnits; k++) left.at[k] = splat(t.pulses);
  if (t.pulses > static_cast<float>(length >> 1)) {
    for (int j = 0; j < length; j++) {
      for (int k = 0; k < kUnits; k++) {
        const F share = (t.pulses * t.u[j].at[k]) / t.l1.at[k];
        F count = __builtin_convertvector(__builtin_convertvector(share, I), F);
        count = smaller(count, left.at[k]);
        if constexpr (kCapped) count = smaller(count, t.caps[j].at[k]);
        y[j].at[k] = count;
        left.at[k] = left.at[k] - count;
      }
    }
  } else {
    memset(y, 0, sizeof(Row) * length);
  }
  products<kWeighted>(t, y);
  Row chosen;
  for (int k = 0; k < kUnits; k++) chosen.at[k] = splat(-1.0f);
  for (;;) {
    I some{};
    for (int k = 0; k < kUnits; k++) some |= left.at[k] > 0.0f;
    const bool more = any(some);
    Row numerator, denominator, sum, next;
    for (int k = 0; k < kUnits; k++) {
      numerator.at[k] = splat(-1.0f);
      denominator.at[k] = splat(1.0f);
      next.at[k] = splat(-1.0f);
      sum.at[k] = t.xy.at[k];
    }
    // The pulse of the last pass is put in its place on the way.
    for (int j = 0; j < length; j++) {
      const float index = static_cast<float>(j);
      for (int k = 0; k < kUnits; k++) {
        const F v = chosen.at[k] == index ? y[j].at[k] + 1.0f : y[j].at[k];
        y[j].at[k] = v;
        const F to = t.xy.at[k] + weighted_u<kWeighted>(t, j, k);
        const F top = to * to;
        const F bottom = t.yy.at[k] + times_weight<kWeighted>(t, j, k, 2.0f * v + 1.0f);
        I better = top * denominator.at[k] > numerator.at[k] * bottom;
        if constexpr (kCapped) better &= v < t.caps[j].at[k];
        numerator.at[k] = better ? top : numerator.at[k];
        denominator.at[k] = better ? bottom : denominator.at[k];
        sum.at[k] = better ? to : sum.at[k];
        next.at[k] = better ? splat(index) : next.at[k];
      }
    }
    if (!more) break;
    for (int k = 0; k < kUnits; k++) {
      const I active = left.at[k] > 0.0f;
      t.xy.at[k] = active ? sum.at[k] : t.xy.at[k];
      t.yy.at[k] = active ? denominator.at[k] : t.yy.at[k];
      chosen.at[k] = active ? next.at[k] : splat(-1.0f);
      left.at[k] = active ? left.at[k] - 1.0f : left.at[k];
    }
  }
  products<kWeighted>(t, y);
}

// The points nearest to alpha u.
template <bool kWeighted, bool kCapped>
static void near(Tile& t, const Row& alpha, Row* y) {
  const int length = t.length;
  Row left, tau;
  for (int k = 0; k < kUnits; k++) {
    tau.at[k] = (t.pulses - alpha.at[k] * t.l1.at[k]) / t.inverse_sum.at[k];
    left.at[k] = splat(t.pulses);
  }
  for (int j = 0; j < length; j++) {
    for (int k = 0; k < kUnits; k++) {
      const F scaled = alpha.at[k] * t.u[j].at[k];
      t.scaled[j].at[k] = scaled;
      F shift = tau.at[k];
      if constexpr (kWeighted) shift = shift / t.h[j].at[k];
      F most = splat(t.pulses);
      if constexpr (kCapped) most = t.caps[j].at[k];
      const F count = ceiling(smaller(larger((scaled + shift) - 0.5f, F{}), most));
      y[j].at[k] = count;
      left.at[k] = left.at[k] - count;
    }
  }
  // Pulses are added or taken away one a pass; each pass first puts the one of the pass before it in its place.
  Row chosen, step, sign;
  for (int k = 0; k < kUnits; k++) {
    chosen.at[k] = splat(-1.0f);
    sign.at[k] = left.at[k] < 0.0f ? splat(-1.0f) : splat(1.0f);
    step.at[k] = sign.at[k];
  }
  for (;;) {
    I some{};
    for (int k = 0; k < kUnits; k++) some |= left.at[k] != 0.0f;
    const bool more = any(some);
    Row most, next, xy{}, yy{};
    for (int k = 0; k < kUnits; k++) {
      most.at[k] = splat(-__builtin_inff());
      next.at[k] = splat(-1.0f);
    }
    for (int j = 0; j < length; j++) {
      const float index = static_cast<float>(j);
      for (int k = 0; k < kUnits; k++) {
        const F v = chosen.at[k] == index ? y[j].at[k] + step.at[k] : y[j].at[k];
        y[j].at[k] = v;
        xy.at[k] = xy.at[k] + weighted_u<kWeighted>(t, j, k) * v;
        yy.at[k] = yy.at[k] + times_weight<kWeighted>(t, j, k, v) * v;
        F value = sign.at[k] * (t.scaled[j].at[k] - v);
        if constexpr (kWeighted) value = t.h[j].at[k] * (value - 0.5f);
        // Adding is always open without caps; taking away needs a pulse.
        I better = (value > most.at[k]) & ((sign.at[k] > 0.0f) | (v > 0.0f));
        if constexpr (kCapped) better &= (sign.at[k] < 0.0f) | (v < t.caps[j].at[k]);
        most.at[k] = better ? value : most.at[k];
        next.at[k] = better ? splat(index) : next.at[k];
      }
    }
    if (!more) {
      t.xy = xy;
      t.yy = yy;
      return;
    }
    for (int k = 0; k < kUnits; k++) {
      const I active = left.at[k] != 0.0f;
      chosen.at[k] = active ? next.at[k] : splat(-1.0f);
      left.at[k] = active ? left.at[k] - sign.at[k] : left.at[k];
    }
  }
}

template <bool kWeighted, bool kCapped>
static void fixed_point(Tile& t, Row* y, Row* trial) {
  Row best_xy{}, best_yy, alpha;
  for (int k = 0; k < kUnits; k++) {
    best_yy.at[k] = splat(1.0f);
    alpha.at[k] = t.pulses / t.l1.at[k];
  }
  for (int step = 0; step < kIterations; step++) {
    near<kWeighted, kCapped>(t, alpha, trial);
    I moving{};
    Row better;
    for (int k = 0; k < kUnits; k++) {
      const I more = exceeds(t.xy.at[k], t.yy.at[k], best_xy.at[k], best_yy.at[k]);
      better.at[k] = more ? splat(1.0f) : F{};
      best_xy.at[k] = more ? t.xy.at[k] : best_xy.at[k];
      best_yy.at[k] = more ? t.yy.at[k] : best_yy.at[k];
      const F next = t.yy.at[k] / t.xy.at[k];
      moving |= next != alpha.at[k];
      alpha.at[k] = next;
    }
    for (int j = 0; j < t.length; j++) {
      for (int k = 0; k < kUnits; k++) y[j].at[k] = better.at[k] > 0.0f ? trial[j].at[k] : y[j].at[k];
    }
    if (!any(moving)) break;
  }
  t.xy = best_xy;
  t.yy = best_yy;
}

template <bool kWeighted, bool kCapped>
static void exchange(Tile& t, Row* y) {
  const int length = t.length;
  const int64_t most_steps = static_cast<int64_t>(t.pulses) + length;
  for (int64_t step = 0; step < most_steps; step++) {
    Row numerator, denominator, sum, from, to;
    for (int k = 0; k < kUnits; k++) {
      numerator.at[k] = t.xy.at[k] * t.xy.at[k];
      denominator.at[k] = t.yy.at[k];
      sum.at[k] = t.xy.at[k];
      from.at[k] = to.at[k] = splat(-1.0f);
    }
    for (int i = 0; i < length; i++) {
      Row freed, taken;
      I some{};
      for (int k = 0; k < kUnits; k++) {
        freed.at[k] = times_weight<kWeighted>(t, i, k, 2.0f * y[i].at[k] - 1.0f);
        taken.at[k] = weighted_u<kWeighted>(t, i, k);
        some |= y[i].at[k] > 0.0f;
      }
      if (!any(some)) continue;
      for (int j = 0; j < length; j++) {
        if (j == i) continue;
        for (int k = 0; k < kUnits; k++) {
          const F total = t.xy.at[k] + (weighted_u<kWeighted>(t, j, k) - taken.at[k]);
          const F top = total * total;
          const F added = times_weight<kWeighted>(t, j, k, 2.0f * y[j].at[k] + 1.0f);
          const F bottom = t.yy.at[k] + (added - freed.at[k]);
          I better = (top * denominator.at[k] > numerator.at[k] * bottom) & (y[i].at[k] > 0.0f) & (total > 0.0f);
          if constexpr (kCapped) better &= y[j].at[k] < t.caps[j].at[k];
          numerator.at[k] = better ? top : numerator.at[k];
          denominator.at[k] = better ? bottom : denominator.at[k];
          sum.at[k] = better ? total : sum.at[k];
          from.at[k] = better ? splat(static_cast<float>(i)) : from.at[k];
          to.at[k] = better ? splat(static_cast<float>(j)) : to.at[k];
        }
      }
    }
    I moved{};
    for (int k = 0; k < kUnits; k++) moved |= from.at[k] >= 0.0f;
    if (!any(moved)) break;
    for (int j = 0; j < length; j++) {
      const float index = static_cast<float>(j);
      for (int k = 0; k < kUnits; k++) {
        F v = y[j].at[k];
        v = from.at[k] == index ? v - 1.0f : v;
        y[j].at[k] = to.at[k] == index ? v + 1.0f : v;
      }
    }
    // Where nothing was found, both are what they were.
    t.xy = sum;
    t.yy = denominator;
  }
  products<kWeighted>(t, y);
}

// Bounds of alpha* from the angle of a point that is known.
static void alpha_range(const Tile& t, Row& low, Row& high) {
  const float shrink = static_cast<float>(1 - kRangeMargin);
  const float grow = static_cast<float>(1 + kRangeMargin);
  const F one = splat(1.0f);
  for (int k = 0; k < kUnits; k++) {
    const F l1 = t.l1.at[k], energy = t.energy.at[k];
    const F square = smaller(one, (t.xy.at[k] * t.xy.at[k]) / (t.yy.at[k] * energy));
    const F cosine = square_root(square);
    const F sine = square_root((1.0f - square) + kAngleMargin);
    const F product = t.inverse_sum.at[k] * energy;
    const F across = square_root(larger(F{}, product - l1 * l1));
    const F along = l1 * cosine;
    const F aside = across * sine;
    const F span = cosine * (along - aside);
    const F length = cosine * square_root(energy);
    high.at[k] = (t.pulses / larger(span, length)) * grow;
    const F reach = square_root(product) + l1;
    const I narrow = sine * reach < across * cosine;
    const F bound = narrow ? t.pulses / (cosine * (along + aside)) : (2.0f * t.pulses) / reach;
    const F least = square_root((t.least_weight.at[k] * t.pulses) / energy);
    low.at[k] = larger(bound, least) * shrink;
  }
}

// What a pass of the walk finds in one vector of lanes: where a pulse is best added and best taken away at alpha.
struct Candidates {
  F most, to, to_u, to_y, to_h;
  F least, from, from_u, from_y, from_h;
};

// One pass: first the transfers of `make_from` and `make_to` are made; then, with kKeep, the lanes of `keep` copy their
// point to y.
template <bool kWeighted, bool kCapped, bool kKeep>
static inline void walk_pass(const Tile& t, int k, F alpha, F make_from, F make_to, I keep, Row* y, Row* trial,
                             Candidates& found) {
  const F none = splat(-1.0f);
  F most = splat(-__builtin_inff()), to = none, to_u{}, to_y{}, to_h{};
  F least = splat(__builtin_inff()), from = none, from_u{}, from_y{}, from_h{};
  const int length = t.length;
  for (int j = 0; j < length; j++) {
    const F index = splat(static_cast<float>(j));
    F v = trial[j].at[k];
    v = make_from == index ? v - 1.0f : v;
    v = make_to == index ? v + 1.0f : v;
    trial[j].at[k] = v;
    if constexpr (kKeep) y[j].at[k] = keep ? v : y[j].at[k];
    const F u = weighted_u<kWeighted>(t, j, k);
    F gain, loss;
    if constexpr (kWeighted) {
      const F residual = alpha * u - t.h[j].at[k] * v;
      const F half = 0.5f * t.h[j].at[k];
      gain = residual - half;
      loss = residual + half;
    } else {
      gain = loss = alpha * u - v;
    }
    I more = gain > most;
    if constexpr (kCapped) more &= v < t.caps[j].at[k];
    most = more ? gain : most;
    to = more ? index : to;
    to_u = more ? u : to_u;
    to_y = more ? v : to_y;
    const I less = (loss < least) & (v > 0.0f);
    least = less ? loss : least;
    from = less ? index : from;
    from_u = less ? u : from_u;
    from_y = less ? v : from_y;
    if constexpr (kWeighted) {
      to_h = more ? t.h[j].at[k] : to_h;
      from_h = less ? t.h[j].at[k] : from_h;
    }
  }
  found = {most, to, to_u, to_y, to_h, least, from, from_u, from_y, from_h};
}

// Walks the transfers from the point of `trial`, near(low), to `high` in the lanes of vector k, and leaves the best point
// in y. Every lane is at a step of its own: one that found a pair looks for a better one at that pair's alpha, one that
// has its transfer makes it in the next pass, one that has none rests.
template <bool kWeighted, bool kCapped>
static void walk(const Tile& t, int k, F high, F best_xy, F best_yy, Row* y, Row* trial) {
  const F none = splat(-1.0f);
  F xy = t.xy.at[k], yy = t.yy.at[k];
  F from = none, to = none, make_from = none, make_to = none, growth{}, cost{};
  F alpha = high;
  I keep = exceeds(xy, yy, best_xy, best_yy);
  best_xy = keep ? xy : best_xy;
  best_yy = keep ? yy : best_yy;
  for (;;) {
    Candidates next;
    if (any(keep)) {
      walk_pass<kWeighted, kCapped, true>(t, k, alpha, make_from, make_to, keep, y, trial, next);
    } else {
      walk_pass<kWeighted, kCapped, false>(t, k, alpha, make_from, make_to, keep, y, trial, next);
    }
    const F span = next.to_u - next.from_u;
    F price, change;
    if constexpr (kWeighted) {
      price = next.to_h * (next.to_y + 0.5f) - next.from_h * (next.from_y - 0.5f);
      change = next.to_h * (2.0f * next.to_y + 1.0f) - next.from_h * (2.0f * next.from_y - 1.0f);
    } else {
      price = (next.to_y - next.from_y) + 1.0f;
      change = 2.0f * price;
    }
    const F ratio = price / span;
    const F gap = splat(kWeighted ? 0.0f : 1.0f);
    const I pair = (next.most - next.least > gap) & (span > 0.0f) & (ratio < alpha);
    const I make = ~pair & (to >= 0.0f);
    if (!any(pair | make)) return;
    make_from = make ? from : none;
    make_to = make ? to : none;
    xy = make ? xy + growth : xy;
    yy = make ? yy + cost : yy;
    keep = make & exceeds(xy, yy, best_xy, best_yy);
    best_xy = keep ? xy : best_xy;
    best_yy = keep ? yy : best_yy;
    from = pair ? next.from : none;
    to = pair ? next.to : none;
    growth = span;
    cost = change;
    alpha = pair ? ratio : high;
  }
}

template <bool kWeighted, bool kCapped>
static void exact(Tile& t, Row* y, Row* trial) {
  Row low, high, alpha;
  for (int k = 0; k < kUnits; k++) alpha.at[k] = t.pulses / t.l1.at[k];
  near<kWeighted, kCapped>(t, alpha, y);
  const Row xy = t.xy, yy = t.yy;
  alpha_range(t, low, high);
  near<kWeighted, kCapped>(t, low, trial);
  for (int k = 0; k < kUnits; k++) {
    walk<kWeighted, kCapped>(t, k, high.at[k], xy.at[k], yy.at[k], y, trial);
  }
}

template <bool kWeighted, bool kCapped>
static void search_tile(Tile& t, const SearchSettings& settings) {
  switch (settings.mode) {
    case SearchMode::Exact:
      exact<kWeighted, kCapped>(t, t.y, t.other);
      return;
    case SearchMode::Greedy:
      greedy<kWeighted, kCapped>(t, t.y);
      if (settings.exchange) exchange<kWeighted, kCapped>(t, t.y);
      return;
    case SearchMode::FixedPoint:
      fixed_point<kWeighted, kCapped>(t, t.y, t.other);
      if (settings.exchange) exchange<kWeighted, kCapped>(t, t.y);
      return;
    case SearchMode::Best: {
      fixed_point<kWeighted, kCapped>(t, t.y, t.other);
      exchange<kWeighted, kCapped>(t, t.y);
      const Row xy = t.xy, yy = t.yy;
      greedy<kWeighted, kCapped>(t, t.other);
      exchange<kWeighted, kCapped>(t, t.other);
      for (int k = 0; k < kUnits; k++) {
        const I second = exceeds(xy.at[k], yy.at[k], t.xy.at[k], t.yy.at[k]);
        for (int j = 0; j < t.length; j++) t.y[j].at[k] = second ? t.y[j].at[k] : t.other[j].at[k];
      }
      return;
    }
  }
}

}  // namespace
}  // namespace surprisal
