import { afterEach, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { rowGroups } from '../../src/kernels/pyramid.js';
import { dequantizeRows, unpackPulses } from '../../src/kernels/pyramid-index.js';
import { gainLevels } from '../../src/quantization/gain-levels.js';
import { factorHessian } from '../../src/quantization/hessian.js';
import {
  type HessianEncodingOptions,
  planFeedback,
  quantizeWithHessian,
} from '../../src/quantization/hessian-encoding.js';
import { hessianLosses } from '../../src/quantization/refits.js';
import { correlatedHessian, normals } from './hessian-cases.js';

interface Sizes {
  rows: number;
  n: number;
  D: number;
  K: number;
  gainBits: number;
  orderGroups?: boolean;
  /** One input a thousand times as large as the others, as models have them. */
  massive?: boolean;
}

const sizes: Sizes = { rows: 40, n: 160, D: 16, K: 23, gainBits: 3 };

function hessianOf({ n, massive = false }: Sizes): Float64Array {
  const H = correlatedHessian(n, 2 * n, 21);
  const factor = (i: number): number => (massive && i === 33 ? 1000 : 1);
  return H.map((value, at) => value * factor(at % n) * factor(Math.floor(at / n)));
}

function prepare(shape: Sizes) {
  const { rows, n, D, K, gainBits, orderGroups = false } = shape;
  const H = hessianOf(shape);
  const weights = Float32Array.from(normals(rows * n, 22));
  // A row of zeros and one of tiny weights.
  weights.fill(0, n, 2 * n);
  for (let c = 2 * n; c < 3 * n; c++) weights[c] *= 1e-7;
  const factor = factorHessian(H, n, { tensor: 'w', ...(orderGroups && { orderGroups: D }) });
  const plain = factorHessian(hessianOf(shape), n, { tensor: 'w' });
  const levels = Float32Array.from(gainLevels('lloyd', D, n, 2 ** gainBits));
  const code = { groupLength: D, pulses: K, superGroup: 1, gainBits };
  const plan = planFeedback(factor, D);
  const run = (options: HessianEncodingOptions = {}) =>
    quantizeWithHessian(weights, rows, n, plan, code, levels, options);
  const runBand = (first: number, last: number, options: HessianEncodingOptions) =>
    quantizeWithHessian(weights.subarray(first * n, last * n), last - first, n, plan, code, levels, options);
  const lossOf = (decoded: Float32Array): number =>
    hessianLosses(Float64Array.from(weights), Float64Array.from(decoded), rows, plain).reduce((a, b) => a + b, 0);
  return { weights, run, runBand, lossOf, code };
}

const final = ({ statistics }: ReturnType<ReturnType<typeof prepare>['run']>): number =>
  statistics.steps[statistics.steps.length - 1].loss;

describe('encoding with a Hessian', () => {
  afterEach(() => configureKernels({ native: true }));

  it.each<[string, Sizes, HessianEncodingOptions]>([
    ['feedback', sizes, { metricSearch: false, rowRefit: false }],
    ['search in the metric', sizes, { rowRefit: false }],
    ['row refit', sizes, {}],
    ['gain refit', sizes, { gainRefit: true }],
    ['descent', sizes, { gainRefit: true, passes: 2 }],
    ['descent alone', sizes, { feedback: false, passes: 2 }],
    ['caps', { ...sizes, K: 30 }, { cap: 4, negativeCap: 5, passes: 1 }],
    ['a shorter last group', { ...sizes, n: 150 }, { passes: 1, gainRefit: true }],
    ['groups in order', { ...sizes, orderGroups: true }, { passes: 1, gainRefit: true }],
    ['groups in order with a shorter last one', { ...sizes, n: 150, orderGroups: true }, {}],
    ['a massive input', { ...sizes, massive: true }, { passes: 1, gainRefit: true }],
    ['no gain bits', { ...sizes, gainBits: 0 }, { passes: 1, gainRefit: true }],
    ['groups longer than the lazy block', { ...sizes, D: 80, K: 100 }, {}],
  ])('reports the loss of what is stored: %s', (_name, shape, options) => {
    const { run, lossOf, code } = prepare(shape);
    const { encoded, decoded, statistics } = run(options);
    const { rows, n } = shape;
    const truth = lossOf(decoded);
    expect(Math.abs(statistics.steps[statistics.steps.length - 1].loss / truth - 1)).toBeLessThan(1e-4);
    const again = new Float32Array(rows * n);
    dequantizeRows(encoded, again);
    expect(again).toEqual(decoded);
    const groups = rowGroups(n, code.groupLength);
    const pulses = new Int16Array(rows * groups * code.groupLength);
    unpackPulses(encoded.index, rows, groups, code, pulses);
    if (options.cap !== undefined) {
      expect(pulses.every((value) => value <= 4 && value >= -5)).toBe(true);
    }
    // A row of zeros stays zero; no step but the last refit may raise the loss.
    expect(again.subarray(n, 2 * n).every((value) => value === 0)).toBe(true);
    const { steps } = statistics;
    expect(steps[0].step).toBe('nearest');
    for (let i = 1; i < steps.length; i++) expect(steps[i].loss).toBeLessThan(steps[i - 1].loss * (1 + 1e-5));
    expect(Math.abs(statistics.signal / lossOf(new Float32Array(rows * n)) - 1)).toBeLessThan(1e-5);
    for (const step of steps) expect(step.undampedLoss).toBeLessThan(step.loss);
  });

  it('improves with every part of the method', () => {
    const { run } = prepare({ ...sizes, rows: 60 });
    const nearest = run({ feedback: false, rowRefit: false });
    const feedback = run({ metricSearch: false, rowRefit: false });
    const metric = run({ rowRefit: false });
    const rows = run({});
    const descent = run({ passes: 2 });
    const losses = [nearest, feedback, metric, rows, descent].map(final);
    for (let i = 1; i < losses.length; i++) expect(losses[i]).toBeLessThan(losses[i - 1]);
  });

  it('gives the same bytes whatever the threads, and in bands of rows', () => {
    const { run, runBand } = prepare(sizes);
    const [one, two] = [1, 2].map((threads) => run({ threads, passes: 1, gainRefit: true }));
    expect(one.encoded).toEqual(two.encoded);
    expect(one.statistics).toEqual(two.statistics);
    const bands = [runBand(0, 7, { passes: 1 }), runBand(7, sizes.rows, { passes: 1 })];
    const whole = run({ passes: 1 });
    expect(bands.flatMap(({ encoded }) => Array.from(encoded.index))).toEqual(Array.from(whole.encoded.index));
    expect(bands.flatMap(({ encoded }) => Array.from(encoded.scales))).toEqual(Array.from(whole.encoded.scales));
  });

  it('does without native kernels', () => {
    const { run } = prepare({ ...sizes, rows: 6, n: 64 });
    const native = final(run({ passes: 1 }));
    configureKernels({ native: false });
    expect(Math.abs(final(run({ passes: 1 })) / native - 1)).toBeLessThan(0.01);
  });

  it('refuses a plan of another group length', () => {
    const { run } = prepare(sizes);
    expect(run).not.toThrow();
    const factor = factorHessian(correlatedHessian(32, 64, 1), 32, { tensor: 'w' });
    const code = { groupLength: 8, pulses: 10, superGroup: 1, gainBits: 0 };
    expect(() =>
      quantizeWithHessian(new Float32Array(32), 1, 32, planFeedback(factor, 16), code, Float32Array.of(1)),
    ).toThrow(RangeError);
  });
});
