// Lanes of error feedback: one row a lane. Included once for every instruction set, with kWidth, the floats of a
// register. The operations of a lane are those of src/kernels/error-feedback-reference.ts, in the same order.
#include <cmath>
#include <cstring>
#include <limits>

#include "error_feedback.hpp"

namespace surprisal {
namespace {

using Floats = float __attribute__((vector_size(4 * kWidth)));
using Ints = int32_t __attribute__((vector_size(4 * kWidth)));

// Two registers: chains of comparisons are long, and two of them overlap.
constexpr int kRegisters = 2;
constexpr int kLanes = kRegisters * kWidth;

struct alignas(4 * kWidth) Lane {
  Floats part[kRegisters];
  float& at(int lane) { return reinterpret_cast<float*>(part)[lane]; }
  float at(int lane) const { return reinterpret_cast<const float*>(part)[lane]; }
};

inline Floats splat(float value) { return Floats{} + value; }
inline Floats magnitude(Floats x) { return reinterpret_cast<Floats>(reinterpret_cast<Ints>(x) & 0x7fffffff); }
inline Floats choose(Ints mask, Floats yes, Floats no) {
  return reinterpret_cast<Floats>((reinterpret_cast<Ints>(yes) & mask) | (reinterpret_cast<Ints>(no) & ~mask));
}
inline Floats truncated(Floats x) {
  return __builtin_convertvector(__builtin_convertvector(x, Ints), Floats);
}

inline Lane zeros() {
  Lane lane;
  for (int v = 0; v < kRegisters; v++) lane.part[v] = splat(0);
  return lane;
}

inline bool any(const Lane& flags) {
  for (int lane = 0; lane < kLanes; lane++) {
    if (flags.at(lane) != 0) return true;
  }
  return false;
}

// A group in every lane. In the Euclidean metric `projected` is x, and M y is y.
struct Group {
  int64_t w;       // coordinates
  int64_t stride;  // of the metric
  const float* metric;
  Lane* x;          // signed, largest magnitude 1
  Lane* y;          // signed pulses
  Lane* projected;  // M x
  Lane* moved;      // M y
  float cap, negative_cap;
  Lane xy, yy;
};

struct Choice {
  Lane index, sign, sum, bottom;
};

template <bool kMetric>
inline float own(const Group& group, int64_t j) {
  return kMetric ? group.metric[j * group.stride + j] : 1.0f;
}

template <bool kMetric>
inline const Lane& moved(const Group& group, int64_t j) {
  return kMetric ? group.moved[j] : group.y[j];
}

// Adds `sign` (-1, 0, 1) at coordinate `index` of every lane.
template <bool kMetric>
inline void move(Group& group, const Lane& index, const Lane& sign) {
  for (int lane = 0; lane < kLanes; lane++) {
    const float s = sign.at(lane);
    if (s == 0) continue;
    const int64_t j = static_cast<int64_t>(index.at(lane));
    group.y[j].at(lane) += s;
    if (!kMetric) continue;
    const float* row = group.metric + j * group.stride;
    for (int64_t k = 0; k < group.w; k++) group.moved[k].at(lane) += s * row[k];
  }
}

// The pulse that makes the cosine greatest, the lowest index of equals. It joins those of its coordinate; where there
// are none, it has the sign along which the cosine grows.
template <bool kMetric>
inline Choice best_addition(const Group& group) {
  Choice best;
  for (int v = 0; v < kRegisters; v++) {
    best.index.part[v] = splat(-1);
    best.sign.part[v] = splat(0);
    best.sum.part[v] = splat(0);
    best.bottom.part[v] = splat(1);
  }
  Lane top_of_best;
  for (int v = 0; v < kRegisters; v++) top_of_best.part[v] = splat(-std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < group.w; j++) {
    const float diagonal = own<kMetric>(group, j);
    for (int v = 0; v < kRegisters; v++) {
      const Floats y = group.y[j].part[v], p = group.projected[j].part[v], m = moved<kMetric>(group, j).part[v];
      const Floats xy = group.xy.part[v], yy = group.yy.part[v];
      const Floats slope = p * yy - xy * m;
      const Floats along = choose(slope == 0, p, slope);
      const Floats lead = choose(y == 0, along, y);
      const Floats sign = choose(lead < 0, splat(-1), splat(1));
      const Floats sum = xy + sign * p;
      const Floats top = sum * magnitude(sum);
      const Floats bottom = yy + (2.0f * sign * m + diagonal);
      const Ints fits = (sign > 0 & y < group.cap) | (sign < 0 & -y < group.negative_cap);
      const Ints better = (top * best.bottom.part[v] > top_of_best.part[v] * bottom) & (bottom > 0) & fits;
      best.index.part[v] = choose(better, splat(static_cast<float>(j)), best.index.part[v]);
      best.sign.part[v] = choose(better, sign, best.sign.part[v]);
      best.sum.part[v] = choose(better, sum, best.sum.part[v]);
      best.bottom.part[v] = choose(better, bottom, best.bottom.part[v]);
      top_of_best.part[v] = choose(better, top, top_of_best.part[v]);
    }
  }
  return best;
}

// The pulse whose loss leaves the greatest cosine.
template <bool kMetric>
inline Choice best_removal(const Group& group) {
  Choice best;
  Lane top_of_best;
  for (int v = 0; v < kRegisters; v++) {
    best.index.part[v] = splat(-1);
    best.sign.part[v] = splat(0);
    best.sum.part[v] = splat(0);
    best.bottom.part[v] = splat(1);
    top_of_best.part[v] = splat(-std::numeric_limits<float>::infinity());
  }
  for (int64_t j = 0; j < group.w; j++) {
    const float diagonal = own<kMetric>(group, j);
    for (int v = 0; v < kRegisters; v++) {
      const Floats y = group.y[j].part[v], p = group.projected[j].part[v], m = moved<kMetric>(group, j).part[v];
      const Floats sign = choose(y < 0, splat(1), splat(-1));
      const Floats sum = group.xy.part[v] + sign * p;
      const Floats top = sum * magnitude(sum);
      const Floats bottom = group.yy.part[v] + (2.0f * sign * m + diagonal);
      const Ints better =
          (top * best.bottom.part[v] > top_of_best.part[v] * bottom) & (bottom > 0) & (y != 0);
      best.index.part[v] = choose(better, splat(static_cast<float>(j)), best.index.part[v]);
      best.sign.part[v] = choose(better, sign, best.sign.part[v]);
      best.sum.part[v] = choose(better, sum, best.sum.part[v]);
      best.bottom.part[v] = choose(better, bottom, best.bottom.part[v]);
      top_of_best.part[v] = choose(better, top, top_of_best.part[v]);
    }
  }
  return best;
}

// Largest magnitudes of the group; x is divided by them (by 1 where all is zero).
inline Lane normalise(Group& group) {
  Lane most = zeros();
  for (int64_t j = 0; j < group.w; j++) {
    for (int v = 0; v < kRegisters; v++) {
      const Floats size = magnitude(group.x[j].part[v]);
      most.part[v] = choose(size > most.part[v], size, most.part[v]);
    }
  }
  for (int64_t j = 0; j < group.w; j++) {
    for (int v = 0; v < kRegisters; v++) {
      group.x[j].part[v] = group.x[j].part[v] / choose(most.part[v] == 0, splat(1), most.part[v]);
    }
  }
  return most;
}

// y = trunc(K x / ||x||_1) where K > D/2, else 0. Gives the pulses left; none for a lane of zeros.
inline Lane start(Group& group, int64_t pulses, const Lane& most) {
  Lane left, l1 = zeros();
  for (int v = 0; v < kRegisters; v++) {
    left.part[v] = choose(most.part[v] == 0, splat(0), splat(static_cast<float>(pulses)));
  }
  const bool projection = pulses > group.w / 2;
  for (int64_t j = 0; j < group.w; j++) {
    for (int v = 0; v < kRegisters; v++) l1.part[v] = l1.part[v] + magnitude(group.x[j].part[v]);
  }
  for (int64_t j = 0; j < group.w; j++) {
    for (int v = 0; v < kRegisters; v++) {
      if (!projection) {
        group.y[j].part[v] = splat(0);
        continue;
      }
      const Floats x = group.x[j].part[v];
      const Floats share = static_cast<float>(pulses) * magnitude(x);
      const Floats count = truncated(share / choose(l1.part[v] == 0, splat(1), l1.part[v]));
      const Floats limit = choose(x < 0, splat(group.negative_cap), splat(group.cap));
      const Floats most_here = choose(limit < left.part[v], limit, left.part[v]);
      const Floats size = choose(count < most_here, count, most_here);
      group.y[j].part[v] = choose(x < 0, -size, size);
      left.part[v] = left.part[v] - size;
    }
  }
  return left;
}

template <bool kMetric>
inline void measure(Group& group) {
  group.xy = zeros();
  group.yy = zeros();
  for (int64_t j = 0; j < group.w; j++) {
    Lane px = zeros(), my = zeros();
    for (int v = 0; v < kRegisters; v++) {
      if (kMetric) {
        Floats x_sum = splat(0), y_sum = splat(0);
        const float* row = group.metric + j * group.stride;
        for (int64_t k = 0; k < group.w; k++) {
          x_sum = x_sum + row[k] * group.x[k].part[v];
          y_sum = y_sum + row[k] * group.y[k].part[v];
        }
        px.part[v] = x_sum;
        my.part[v] = y_sum;
        group.moved[j].part[v] = y_sum;
      } else {
        px.part[v] = group.x[j].part[v];
        my.part[v] = group.y[j].part[v];
      }
      group.projected[j].part[v] = px.part[v];
      group.xy.part[v] = group.xy.part[v] + px.part[v] * group.y[j].part[v];
      group.yy.part[v] = group.yy.part[v] + my.part[v] * group.y[j].part[v];
    }
  }
}

// Where rounding left no candidate the pulses must still be K in all: the first coordinate with room.
inline void first_with_room(const Group& group, Choice& best) {
  for (int lane = 0; lane < kLanes; lane++) {
    if (best.index.at(lane) >= 0) continue;
    int64_t j = 0;
    const auto full = [&] {
      const float y = group.y[j].at(lane);
      return y < 0 ? -y >= group.negative_cap : y >= group.cap;
    };
    while (j + 1 < group.w && full()) j++;
    best.index.at(lane) = static_cast<float>(j);
    best.sign.at(lane) = group.y[j].at(lane) < 0 ? -1.0f : 1.0f;
    best.sum.at(lane) = group.xy.at(lane);
    best.bottom.at(lane) = group.yy.at(lane);
  }
}

template <bool kMetric>
inline void add_pulses(Group& group, Lane& left) {
  while (any(left)) {
    Choice best = best_addition<kMetric>(group);
    first_with_room(group, best);
    for (int v = 0; v < kRegisters; v++) {
      const Ints open = left.part[v] > 0;
      best.sign.part[v] = choose(open, best.sign.part[v], splat(0));
      group.xy.part[v] = choose(open, best.sum.part[v], group.xy.part[v]);
      group.yy.part[v] = choose(open, best.bottom.part[v], group.yy.part[v]);
      left.part[v] = choose(open, left.part[v] - 1.0f, left.part[v]);
    }
    move<kMetric>(group, best.index, best.sign);
  }
}

// Takes away the pulse that matters least and adds the best one, while the cosine grows.
template <bool kMetric>
inline void polish(Group& group, const Lane& most, int64_t steps) {
  Lane active;
  for (int v = 0; v < kRegisters; v++) active.part[v] = choose(most.part[v] == 0, splat(0), splat(1));
  for (int64_t step = 0; step < steps && any(active); step++) {
    const Lane old_xy = group.xy, old_yy = group.yy;
    Choice gone = best_removal<kMetric>(group);
    for (int v = 0; v < kRegisters; v++) {
      const Ints open = (active.part[v] != 0) & (gone.index.part[v] >= 0);
      active.part[v] = choose(open, splat(1), splat(0));
      gone.sign.part[v] = choose(open, gone.sign.part[v], splat(0));
      group.xy.part[v] = choose(open, gone.sum.part[v], old_xy.part[v]);
      group.yy.part[v] = choose(open, gone.bottom.part[v], old_yy.part[v]);
    }
    move<kMetric>(group, gone.index, gone.sign);
    Choice added = best_addition<kMetric>(group);
    Lane back = zeros();
    for (int v = 0; v < kRegisters; v++) {
      const Ints open = active.part[v] != 0;
      const Floats sum = added.sum.part[v], bottom = added.bottom.part[v];
      const Floats reach = sum * magnitude(sum) * old_yy.part[v];
      const Floats had = old_xy.part[v] * magnitude(old_xy.part[v]) * bottom;
      const Ints better = open & (added.index.part[v] >= 0) & (reach > had);
      added.sign.part[v] = choose(better, added.sign.part[v], splat(0));
      back.part[v] = choose(open & ~better, -gone.sign.part[v], splat(0));
      group.xy.part[v] = choose(better, sum, old_xy.part[v]);
      group.yy.part[v] = choose(better, bottom, old_yy.part[v]);
      active.part[v] = choose(better, splat(1), splat(0));
    }
    move<kMetric>(group, added.index, added.sign);
    move<kMetric>(group, gone.index, back);
  }
}

template <bool kMetric>
inline Lane search(Group& group, int64_t pulses, int64_t polish_steps) {
  const Lane most = normalise(group);
  Lane left = start(group, pulses, most);
  measure<kMetric>(group);
  add_pulses<kMetric>(group, left);
  polish<kMetric>(group, most, polish_steps);
  for (int v = 0; v < kRegisters; v++) {
    const Ints zero = most.part[v] == 0;
    Floats rest = splat(static_cast<float>(pulses));
    for (int64_t j = 0; j < group.w; j++) {
      const Floats size = choose(rest < group.cap, rest, splat(group.cap));
      group.y[j].part[v] = choose(zero, size, group.y[j].part[v]);
      rest = rest - size;
    }
    group.xy.part[v] = choose(zero, splat(0), group.xy.part[v]);
  }
  return most;
}

// Gain codes, and what a pulse is worth: scale level / ||y||.
inline Lane gains(const Group& group, const FeedbackStep& step, const Lane& scales, const Lane& most, Lane& codes) {
  Lane worth;
  for (int v = 0; v < kRegisters; v++) {
    Floats squares = splat(0);
    for (int64_t j = 0; j < group.w; j++) squares = squares + group.y[j].part[v] * group.y[j].part[v];
    Floats norm;
    for (int lane = 0; lane < kWidth; lane++) norm[lane] = std::sqrt(squares[lane]);
    const Floats scale = scales.part[v];
    const Ints dead = (scale == 0) | (most.part[v] == 0);
    const Floats ratio = group.xy.part[v] / choose(most.part[v] == 0, splat(1), group.yy.part[v]);
    const Floats gain = ratio * most.part[v] * norm / choose(scale == 0, splat(1), scale);
    const Floats amplitude = choose(dead, splat(-1), gain);
    Floats code = splat(0), level = splat(step.levels[0]);
    for (int64_t i = 1; i < step.level_count; i++) {
      const Ints above = amplitude > (step.levels[i - 1] + step.levels[i]) * 0.5f;
      code = choose(above, splat(static_cast<float>(i)), code);
      level = choose(above, splat(step.levels[i]), level);
    }
    codes.part[v] = code;
    worth.part[v] = scale * level / norm;
  }
  return worth;
}

// e M e^T of every lane, summed in the order of the coordinates.
inline Lane metric_square(const Lane* e, int64_t w, const float* metric, int64_t stride) {
  Lane sum = zeros();
  for (int64_t i = 0; i < w; i++) {
    for (int v = 0; v < kRegisters; v++) {
      Floats dot = splat(0);
      for (int64_t j = 0; j < w; j++) dot = dot + metric[i * stride + j] * e[j].part[v];
      sum.part[v] = sum.part[v] + e[i].part[v] * dot;
    }
  }
  return sum;
}

inline void load(const float* source, int64_t stride, int64_t count, int64_t columns, Lane* target) {
  for (int64_t c = 0; c < columns; c++) target[c] = zeros();
  for (int64_t lane = 0; lane < count; lane++) {
    for (int64_t c = 0; c < columns; c++) target[c].at(static_cast<int>(lane)) = source[lane * stride + c];
  }
}

inline void store(const Lane* source, int64_t count, int64_t columns, float* target, int64_t stride) {
  for (int64_t lane = 0; lane < count; lane++) {
    for (int64_t c = 0; c < columns; c++) target[lane * stride + c] = source[c].at(static_cast<int>(lane));
  }
}

int64_t scratch_floats(const FeedbackStep& step) {
  return (4 * (step.to - step.from) + 7 * step.columns) * kLanes;
}

void run_rows(const FeedbackStep& step, int64_t first, int64_t count, float* scratch) {
  const int64_t lazy = step.to - step.from, D = step.columns, n = step.n;
  const int64_t blocks = (n + D - 1) / D;
  Lane* work = reinterpret_cast<Lane*>(scratch);
  Lane* base = work + lazy;
  Lane* decoded = base + lazy;
  Lane* change = decoded + lazy;
  Lane* x = change + lazy;
  Lane* y = x + D;
  Lane* projected = y + D;
  Lane* moved_by = projected + D;
  Lane* target = moved_by + D;
  Lane* error = target + D;
  Lane* chosen = error + D;
  const int64_t corner = first * n + step.from;
  load(step.work + corner, n, count, lazy, work);
  load((step.descent ? step.decoded : step.base) + corner, n, count, lazy, base);
  Lane scales = zeros();
  for (int64_t lane = 0; lane < count; lane++) scales.at(static_cast<int>(lane)) = step.scales[first + lane];
  for (int64_t at = 0; at < lazy; at += D) {
    const int64_t block = (step.from + at) / D;
    const int64_t w = at + D <= lazy ? D : lazy - at;
    const float* metric = step.metrics + block * D * D;
    for (int64_t j = 0; j < w; j++) {
      for (int v = 0; v < kRegisters; v++) {
        const Floats aim = work[at + j].part[v];
        target[j].part[v] = step.descent ? base[at + j].part[v] + aim : aim;
        x[j].part[v] = target[j].part[v];
      }
    }
    Group group{w,        D,
                metric,   x,
                y,        projected,
                moved_by, static_cast<float>(step.cap),
                static_cast<float>(step.negative_cap), zeros(),
                zeros()};
    const Lane most = step.in_metric ? search<true>(group, step.pulse_count, step.polish_steps)
                                     : search<false>(group, step.pulse_count, step.polish_steps);
    Lane codes;
    const Lane worth = gains(group, step, scales, most, codes);
    for (int64_t j = 0; j < w; j++) {
      for (int v = 0; v < kRegisters; v++) {
        chosen[j].part[v] = worth.part[v] * y[j].part[v];
        error[j].part[v] = target[j].part[v] - chosen[j].part[v];
        if (!step.descent) work[at + j].part[v] = error[j].part[v];
      }
    }
    Lane loss = metric_square(error, w, metric, D);
    Lane taken;
    for (int v = 0; v < kRegisters; v++) taken.part[v] = splat(1);
    if (step.descent) {
      const Lane had = metric_square(work + at, w, metric, D);
      for (int v = 0; v < kRegisters; v++) {
        taken.part[v] = choose(loss.part[v] < had.part[v], splat(1), splat(0));
        loss.part[v] = choose(loss.part[v] < had.part[v], loss.part[v] - had.part[v], splat(0));
      }
    }
    for (int64_t j = 0; j < w; j++) {
      for (int v = 0; v < kRegisters; v++) {
        const Floats value = choose(taken.part[v] != 0, chosen[j].part[v], base[at + j].part[v]);
        decoded[at + j].part[v] = value;
        change[at + j].part[v] = base[at + j].part[v] - value;
      }
    }
    // Descent moves what lies before the block as well, and its own columns (its coupling is the identity).
    for (int64_t c = step.descent ? 0 : at + w; c < lazy; c++) {
      const float* row = step.coupling + (step.from + at) * n + step.from + c;
      for (int v = 0; v < kRegisters; v++) {
        Floats sum = splat(0);
        for (int64_t j = 0; j < w; j++) sum = sum + row[j * n] * change[at + j].part[v];
        work[c].part[v] = work[c].part[v] + sum;
      }
    }
    for (int64_t lane = 0; lane < count; lane++) {
      const int l = static_cast<int>(lane);
      if (taken.at(l) == 0) continue;
      const int64_t row = first + lane;
      step.losses[row] += step.metric_scales[block] * static_cast<double>(loss.at(l));
      step.codes[row * blocks + block] = static_cast<uint8_t>(codes.at(l));
      int16_t* stored = step.pulses + (row * blocks + block) * D;
      for (int64_t j = 0; j < D; j++) stored[j] = j < w ? static_cast<int16_t>(y[j].at(l)) : 0;
    }
  }
  store(work, count, lazy, step.work + corner, n);
  store(decoded, count, lazy, step.decoded + corner, n);
  store(change, count, lazy, step.change + first * lazy, lazy);
}

}  // namespace
}  // namespace surprisal
