import { describe, expect, it } from 'vitest';
import { runExpert } from '../../src/moe/expert-function.js';
import { dispatch, gateMass, route, runLayer } from '../../src/moe/layer-function.js';
import type { ExpertMatrices, ExpertShape, RouterRule } from '../../src/moe/types.js';
import { normals, randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 5, width: 7, gated: true, activation: 'silu' };

/** One output component, straight from the definition. */
function plainOutput(expert: ExpertMatrices, of: ExpertShape, x: ArrayLike<number>, act: (z: number) => number) {
  const dot = (matrix: ArrayLike<number>, i: number) => {
    let sum = 0;
    for (let d = 0; d < of.hidden; d++) sum += matrix[i * of.hidden + d] * x[d];
    return sum;
  };
  return Array.from({ length: of.hidden }, (_, d) => {
    let sum = 0;
    for (let i = 0; i < of.width; i++) {
      const inner = expert.gate ? act(dot(expert.gate, i)) * dot(expert.up, i) : act(dot(expert.up, i));
      sum += expert.down[d * of.width + i] * inner;
    }
    return sum;
  });
}

describe('runExpert', () => {
  const activations = {
    silu: (z: number) => z / (1 + Math.exp(-z)),
    relu: (z: number) => Math.max(z, 0),
    gelu_tanh: (z: number) => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3))),
  } as const;

  it.each(['silu', 'relu', 'gelu_tanh'] as const)('is the definition with %s, gated or not', (activation) => {
    for (const gated of [true, false]) {
      const of = { ...shape, gated, activation };
      const expert = randomExpert(of, 0);
      const x = normals(4 * of.hidden, 100);
      const hidden = new Float64Array(4 * of.width);
      const y = runExpert(expert, of, x, 4, { hidden });
      for (let row = 0; row < 4; row++) {
        const expected = plainOutput(expert, of, x.subarray(row * 5, row * 5 + 5), activations[activation]);
        expected.forEach((value, d) => {
          expect(y[row * 5 + d]).toBeCloseTo(value, 12);
        });
      }
      expect(runExpert(expert, of, x, 4)).toEqual(y);
      expect(hidden.every((value) => value !== 0) || activation === 'relu').toBe(true);
    }
  });

  it('refuses matrices that do not fit', () => {
    const expert = randomExpert(shape, 0);
    const x = normals(5, 100);
    expect(() => runExpert({ up: expert.up, down: expert.down }, shape, x, 1)).toThrow('lacks a gate');
    expect(() => runExpert({ ...expert, up: expert.up.subarray(1) }, shape, x, 1)).toThrow(
      '34 entries where [7, 5] has 35',
    );
    expect(() => runExpert(expert, shape, Float32Array.from(x), 1)).toThrow('differ in width');
    expect(() => runExpert(expert, shape, x, 2)).toThrow('needs more than 5');
  });
});

describe('route', () => {
  const rule: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true };

  it('takes the largest, ties to the lowest index', () => {
    const { chosen, weights } = route(Float64Array.of(1, 3, 3, 1, 0, 0, 0, 0), 2, 4, rule);
    expect([...chosen]).toEqual([1, 2, 0, 1]);
    expect([...weights]).toEqual([0.5, 0.5, 0.5, 0.5]);
  });

  it('never chooses an expert twice, whatever the logits', () => {
    const low = Number.NEGATIVE_INFINITY;
    expect([...route(Float64Array.of(low, 2, low), 1, 3, { ...rule, topK: 3 }).chosen]).toEqual([1, 0, 2]);
    expect([...route(Float64Array.of(900, -900), 1, 2, rule).weights]).toEqual([1, 0]);
  });

  it('keeps the weights of a router that does not divide by their sum', () => {
    const { weights, probabilities } = route(Float64Array.of(0, 1, 2), 1, 3, { ...rule, normalizeTopK: false });
    expect([...weights]).toEqual([probabilities[2], probabilities[1]]);
  });

  it('chooses with the correction bias and weighs without it', () => {
    const correctionBias = Float64Array.of(0, 0, 1);
    const sigmoid: RouterRule = { score: 'sigmoid', topK: 1, normalizeTopK: false, correctionBias };
    const { chosen, weights } = route(Float64Array.of(0, 1, -1), 1, 3, sigmoid);
    expect([...chosen]).toEqual([2]);
    expect(weights[0]).toBeCloseTo(1 / (1 + Math.E), 15);
  });
});

describe('dispatch', () => {
  const rule: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true };
  const routing = route(Float64Array.of(3, 2, 0, 0, 3, 2, 2, 3, 0), 3, 3, rule);

  it('runs a shared expert once, with the summed weight', () => {
    const plan = dispatch(routing, Int32Array.of(0, 0, 1), 2);
    expect([...plan.starts]).toEqual([0, 3, 4]);
    expect([...plan.rows]).toEqual([0, 1, 2, 1]);
    expect(plan.weights[0]).toBe(1);
    const mass = gateMass(plan, 3);
    for (let row = 0; row < 3; row++) expect(mass[2 * row] + mass[2 * row + 1]).toBeCloseTo(1, 15);
  });

  it('loses the weight of a dropped expert', () => {
    const plan = dispatch(routing, Int32Array.of(0, -1, 1), 2);
    const mass = gateMass(plan, 3);
    expect(mass[0]).toBeCloseTo(1 / (1 + Math.exp(-1)), 15);
    expect(mass[1]).toBe(0);
  });
});

describe('runLayer', () => {
  it('does not change when identical experts are merged', () => {
    const one = randomExpert(shape, 0);
    const two = randomExpert(shape, 1);
    const rule: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true };
    const layer = { shape, rule, router: normals(4 * 5, 101), routerRows: 4 };
    const x = normals(20 * 5, 100);
    const whole = runLayer({ ...layer, experts: 4, expert: (e) => [one, two, one, two][e] }, x, 20);
    const map = Int32Array.of(0, 1, 0, 1);
    const merged = runLayer({ ...layer, experts: 2, expert: (e) => [one, two][e], map }, x, 20);
    merged.output.forEach((value, i) => {
      expect(value).toBeCloseTo(whole.output[i], 12);
    });
  });
});
