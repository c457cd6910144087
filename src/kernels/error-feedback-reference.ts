import type { FeedbackStep } from './error-feedback.js';

/** The in-block step of error feedback as the native lanes do it: single precision, one operation at a time. */

const f = Math.fround;

interface Group {
  w: number;
  readonly stride: number;
  metric: Float32Array;
  /** Search in `metric`; else Euclidean, where `projected` is x and M y is y. */
  readonly inMetric: boolean;
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly projected: Float32Array;
  readonly moved: Float32Array;
  readonly cap: number;
  readonly negativeCap: number;
  xy: number;
  yy: number;
}

interface Choice {
  index: number;
  sign: number;
  sum: number;
  bottom: number;
}

function move(group: Group, index: number, sign: number): void {
  group.y[index] += sign;
  if (!group.inMetric) return;
  for (let k = 0; k < group.w; k++) group.moved[k] += f(sign * group.metric[index * group.stride + k]);
}

const own = (group: Group, j: number): number => (group.inMetric ? group.metric[j * group.stride + j] : 1);

/** The pulse to add (`adding`) or to take away that leaves the greatest cosine. */
function bestMove(group: Group, adding: boolean): Choice {
  const { w, y, projected, inMetric, xy, yy } = group;
  const moved = inMetric ? group.moved : y;
  const best: Choice = { index: -1, sign: 0, sum: 0, bottom: 1 };
  let bestTop = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < w; j++) {
    const p = projected[j];
    const m = moved[j];
    let sign = y[j] < 0 ? 1 : -1;
    if (adding) {
      const slope = f(f(p * yy) - f(xy * m));
      const lead = y[j] === 0 ? (slope === 0 ? p : slope) : y[j];
      sign = lead < 0 ? -1 : 1;
      if (sign > 0 ? y[j] >= group.cap : -y[j] >= group.negativeCap) continue;
    } else if (y[j] === 0) continue;
    const sum = f(xy + f(sign * p));
    const top = f(sum * Math.abs(sum));
    const bottom = f(yy + f(f(f(2 * sign) * m) + own(group, j)));
    if (f(top * best.bottom) > f(bestTop * bottom) && bottom > 0) {
      best.index = j;
      best.sign = sign;
      best.sum = sum;
      best.bottom = bottom;
      bestTop = top;
    }
  }
  return best;
}

/** Divides x by its largest magnitude, which it gives. */
function normalise({ w, x }: Group): number {
  let most = 0;
  for (let j = 0; j < w; j++) most = Math.max(most, Math.abs(x[j]));
  for (let j = 0; j < w; j++) x[j] = x[j] / (most === 0 ? 1 : most);
  return most;
}

function start({ w, x, y, cap, negativeCap }: Group, pulses: number): number {
  y.fill(0, 0, w);
  if (pulses <= Math.floor(w / 2)) return pulses;
  let left = pulses;
  let l1 = 0;
  for (let j = 0; j < w; j++) l1 = f(l1 + Math.abs(x[j]));
  for (let j = 0; j < w; j++) {
    const size = Math.min(left, x[j] < 0 ? negativeCap : cap, Math.trunc(f(f(pulses * Math.abs(x[j])) / l1)));
    y[j] = x[j] < 0 ? -size : size;
    left -= size;
  }
  return left;
}

function measure(group: Group): void {
  const { w, stride, metric, x, y, projected, moved, inMetric } = group;
  group.xy = 0;
  group.yy = 0;
  for (let j = 0; j < w; j++) {
    let px = x[j];
    let my = y[j];
    if (inMetric) {
      px = 0;
      my = 0;
      for (let k = 0; k < w; k++) {
        px = f(px + f(metric[j * stride + k] * x[k]));
        my = f(my + f(metric[j * stride + k] * y[k]));
      }
      moved[j] = my;
    }
    projected[j] = px;
    group.xy = f(group.xy + f(px * y[j]));
    group.yy = f(group.yy + f(my * y[j]));
  }
}

function polish(group: Group, steps: number): void {
  for (let step = 0; step < steps; step++) {
    const { xy, yy } = group;
    const gone = bestMove(group, false);
    if (gone.index < 0) return;
    group.xy = gone.sum;
    group.yy = gone.bottom;
    move(group, gone.index, gone.sign);
    const added = bestMove(group, true);
    const reach = f(f(added.sum * Math.abs(added.sum)) * yy);
    const had = f(f(xy * Math.abs(xy)) * added.bottom);
    if (added.index < 0 || !(reach > had)) {
      group.xy = xy;
      group.yy = yy;
      move(group, gone.index, -gone.sign);
      return;
    }
    group.xy = added.sum;
    group.yy = added.bottom;
    move(group, added.index, added.sign);
  }
}

/** Largest magnitude of the group; 0 for a group of zeros, whose pulses are all on coordinate 0. */
function search(group: Group, pulses: number, polishSteps: number): number {
  const most = normalise(group);
  if (most === 0) {
    let rest = pulses;
    for (let j = 0; j < group.w; j++) {
      group.y[j] = Math.min(rest, group.cap);
      rest -= group.y[j];
    }
    group.xy = 0;
    return most;
  }
  let left = start(group, pulses);
  measure(group);
  for (; left > 0; left--) {
    const best = bestMove(group, true);
    if (best.index < 0) {
      let j = 0;
      while (j + 1 < group.w && (group.y[j] < 0 ? -group.y[j] >= group.negativeCap : group.y[j] >= group.cap)) j++;
      move(group, j, group.y[j] < 0 ? -1 : 1);
      continue;
    }
    group.xy = best.sum;
    group.yy = best.bottom;
    move(group, best.index, best.sign);
  }
  polish(group, polishSteps);
  return most;
}

function metricSquare(e: Float32Array, at: number, w: number, metric: Float32Array, stride: number): number {
  let sum = 0;
  for (let i = 0; i < w; i++) {
    let dot = 0;
    for (let j = 0; j < w; j++) dot = f(dot + f(metric[i * stride + j] * e[at + j]));
    sum = f(sum + f(e[at + i] * dot));
  }
  return sum;
}

function quantiseGain(
  group: Group,
  levels: Float32Array,
  scale: number,
  most: number,
): { code: number; worth: number } {
  let squares = 0;
  for (let j = 0; j < group.w; j++) squares = f(squares + f(group.y[j] * group.y[j]));
  const norm = f(Math.sqrt(squares));
  let code = 0;
  if (scale !== 0 && most !== 0) {
    const gain = f(f(f(f(group.xy / group.yy) * most) * norm) / scale);
    for (let i = 1; i < levels.length; i++) if (gain > f(f(levels[i - 1] + levels[i]) * 0.5)) code = i;
  }
  return { code, worth: f(f(scale * levels[code]) / norm) };
}

export function feedbackStepReference(step: FeedbackStep): void {
  const { work, base, decoded, change, coupling, metrics, metricScales, scales, levels, pulses, codes, losses } = step;
  const { rows, n, from, to, blockColumns: D, pulseCount, inMetric, descent, polishSteps } = step;
  const lazy = to - from;
  const blocks = Math.ceil(n / D);
  const make = (): Float32Array => new Float32Array(D);
  const group: Group = {
    w: D,
    stride: D,
    metric: metrics,
    inMetric,
    x: make(),
    y: make(),
    projected: make(),
    moved: make(),
    cap: step.cap,
    negativeCap: step.negativeCap,
    xy: 0,
    yy: 0,
  };
  const [target, chosen, error] = [make(), make(), make()];
  const moving = new Float32Array(lazy);
  for (let r = 0; r < rows; r++) {
    for (let at = from; at < to; at += D) {
      const block = at / D;
      const w = Math.min(D, to - at);
      const row = r * n + at;
      group.w = w;
      group.metric = metrics.subarray(block * D * D, (block + 1) * D * D);
      for (let j = 0; j < w; j++) {
        target[j] = descent ? decoded[row + j] + work[row + j] : work[row + j];
        group.x[j] = target[j];
      }
      const most = search(group, pulseCount, polishSteps);
      const { code, worth } = quantiseGain(group, levels, scales[r], most);
      for (let j = 0; j < w; j++) {
        chosen[j] = worth * group.y[j];
        error[j] = target[j] - chosen[j];
        if (!descent) work[row + j] = error[j];
      }
      let loss = metricSquare(error, 0, w, group.metric, D);
      let taken = true;
      if (descent) {
        const had = metricSquare(work, row, w, group.metric, D);
        taken = loss < had;
        loss = f(loss - had);
      }
      const before = descent ? decoded : base;
      for (let j = 0; j < w; j++) {
        const value = taken ? chosen[j] : before[row + j];
        moving[at - from + j] = before[row + j] - value;
        decoded[row + j] = value;
      }
      for (let c = descent ? from : at + w; c < to; c++) {
        let sum = 0;
        for (let j = 0; j < w; j++) sum = f(sum + f(coupling[(at + j) * n + c] * moving[at - from + j]));
        work[r * n + c] += sum;
      }
      if (!taken) continue;
      losses[r] += metricScales[block] * loss;
      codes[r * blocks + block] = code;
      for (let j = 0; j < D; j++) pulses[(r * blocks + block) * D + j] = j < w ? group.y[j] : 0;
    }
    change.set(moving, r * lazy);
  }
}
