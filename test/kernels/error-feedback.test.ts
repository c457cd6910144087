import { afterEach, describe, expect, it } from 'vitest';
import { type FeedbackStep, feedbackStep } from '../../src/kernels/error-feedback.js';
import { feedbackStepReference } from '../../src/kernels/error-feedback-reference.js';
import { nativeKernels } from '../../src/kernels/native.js';
import { createRandom } from '../../src/random.js';

interface Case {
  rows: number;
  n: number;
  from: number;
  to: number;
  D: number;
  K: number;
  levels: number;
  inMetric: boolean;
  descent: boolean;
  polishSteps: number;
  cap?: number;
}

function makeStep(shape: Case): FeedbackStep {
  const { rows, n, from, to, D, K, levels } = shape;
  const random = createRandom(7).fork(rows * n + D);
  const reals = (count: number, factor = 1): Float32Array =>
    Float32Array.from({ length: count }, () => factor * random.normal());
  const blocks = Math.ceil(n / D);
  const metrics = new Float32Array(blocks * D * D);
  for (let b = 0; b < blocks; b++) {
    const root = reals(D * D, 0.4);
    for (let i = 0; i < D; i++) root[i * D + i] += 1;
    for (let i = 0; i < D; i++) {
      for (let j = 0; j < D; j++) {
        let sum = 0;
        for (let k = 0; k < D; k++) sum += root[i * D + k] * root[j * D + k];
        metrics[b * D * D + i * D + j] = sum;
      }
    }
  }
  const coupling = reals(n * n, 0.1);
  const base = reals(rows * n);
  // A row and a group of zeros, and a row without a scale.
  base.fill(0, 0, n);
  if (rows > 1) base.fill(0, n + from, n + from + Math.min(D, n - from));
  const scales = Float32Array.from({ length: rows }, (_, r) =>
    r === 2 ? 0 : Math.sqrt(n) * (1 + 0.1 * random.normal()),
  );
  const root = Math.sqrt(D / n);
  return {
    work: shape.descent ? reals(rows * n, 0.2) : base.slice(),
    base,
    decoded: shape.descent ? reals(rows * n) : new Float32Array(rows * n),
    change: new Float32Array(rows * (to - from)),
    coupling,
    metrics,
    metricScales: new Float64Array(blocks).map((_, b) => 1 + b),
    scales,
    levels: Float32Array.from({ length: levels }, (_, i) => (root * (i + 0.7)) / levels + 0.3 * root),
    pulses: new Int16Array(rows * blocks * D).fill(shape.descent ? 0 : 9),
    codes: new Uint8Array(rows * blocks),
    losses: new Float64Array(rows),
    rows,
    n,
    from,
    to,
    blockColumns: D,
    pulseCount: K,
    cap: shape.cap ?? K,
    negativeCap: shape.cap === undefined ? K : shape.cap + 1,
    inMetric: shape.inMetric,
    descent: shape.descent,
    polishSteps: shape.polishSteps,
  };
}

const cases: Case[] = [
  { rows: 37, n: 64, from: 0, to: 64, D: 8, K: 10, levels: 4, inMetric: false, descent: false, polishSteps: 3 },
  { rows: 37, n: 64, from: 32, to: 64, D: 16, K: 23, levels: 8, inMetric: true, descent: false, polishSteps: 4 },
  { rows: 5, n: 50, from: 16, to: 50, D: 8, K: 3, levels: 2, inMetric: true, descent: false, polishSteps: 0 },
  { rows: 20, n: 48, from: 0, to: 48, D: 24, K: 40, levels: 1, inMetric: true, descent: true, polishSteps: 8 },
  { rows: 20, n: 70, from: 32, to: 70, D: 32, K: 50, levels: 16, inMetric: false, descent: true, polishSteps: 2 },
  { rows: 33, n: 64, from: 0, to: 64, D: 32, K: 75, levels: 4, inMetric: true, descent: false, polishSteps: 4, cap: 3 },
  { rows: 9, n: 6, from: 0, to: 6, D: 1, K: 5, levels: 16, inMetric: true, descent: false, polishSteps: 2 },
];

describe('step of error feedback', () => {
  afterEach(() => nativeKernels()?.limitSimd(2));

  it.each(cases)('has the bits of the reference at every vector width: $D, $K of $n', (shape) => {
    const native = nativeKernels();
    if (native === undefined) return;
    const expected = makeStep(shape);
    feedbackStepReference(expected);
    for (const level of [0, 1, 2]) {
      native.limitSimd(level);
      for (const threads of [1, 2]) {
        const actual = makeStep(shape);
        feedbackStep(actual, threads);
        expect(actual.pulses).toEqual(expected.pulses);
        expect(actual.codes).toEqual(expected.codes);
        expect(actual.decoded).toEqual(expected.decoded);
        expect(actual.change).toEqual(expected.change);
        expect(actual.losses).toEqual(expected.losses);
        expect(actual.work).toEqual(expected.work);
      }
    }
  });

  it.each(cases)('stores points of the pyramid: $D, $K of $n', (shape) => {
    const step = makeStep(shape);
    feedbackStep(step);
    const { rows, n, from, to, D, K } = shape;
    const blocks = Math.ceil(n / D);
    let taken = 0;
    for (let r = 0; r < rows; r++) {
      for (let b = from / D; b < Math.ceil(to / D); b++) {
        const at = (r * blocks + b) * D;
        let sum = 0;
        for (const value of step.pulses.subarray(at, at + D)) sum += Math.abs(value);
        if (shape.descent && sum === 0) continue;
        taken++;
        expect(sum).toBe(K);
        if (shape.cap !== undefined) {
          for (const value of step.pulses.subarray(at, at + D)) {
            expect(value).toBeLessThanOrEqual(shape.cap);
            expect(value).toBeGreaterThanOrEqual(-shape.cap - 1);
          }
        }
        let norm = 0;
        for (const value of step.pulses.subarray(at, at + D)) norm += value * value;
        const gain = (step.scales[r] * step.levels[step.codes[r * blocks + b]]) / Math.sqrt(norm);
        for (let j = 0; j < Math.min(D, to - b * D); j++) {
          expect(step.decoded[r * n + b * D + j]).toBeCloseTo(gain * step.pulses[at + j], 4);
        }
      }
    }
    expect(taken).toBeGreaterThan(rows / 2);
    if (shape.descent) for (const loss of step.losses) expect(loss).toBeLessThanOrEqual(0);
  });

  it('refuses columns that are not whole blocks', () => {
    expect(() => feedbackStep(makeStep({ ...cases[0], from: 4 }))).toThrow(RangeError);
    expect(() => feedbackStep(makeStep({ ...cases[0], to: 30 }))).toThrow(RangeError);
  });
});
