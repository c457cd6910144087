import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createOptimizer, OPTIMIZERS, type OptimizerSettings } from '../../src/training/optimizer.js';
import type { ParameterSet } from '../../src/training/types.js';

/** A matrix [2, 3], a vector [4] and a matrix [1, 2] side by side. */
function parameterSet(precision: 'f32' | 'f64' = 'f64'): ParameterSet {
  const make = (): Float32Array | Float64Array => (precision === 'f64' ? new Float64Array(12) : new Float32Array(12));
  const [values, gradients] = [make(), make()];
  for (let i = 0; i < 12; i++) {
    values[i] = Math.sin(i + 1);
    gradients[i] = Math.cos(3 * i);
  }
  const parameters = [
    { name: 'a', dims: [2, 3], offset: 0, length: 6 },
    { name: 'bias', dims: [4], offset: 6, length: 4 },
    { name: 'b', dims: [1, 2], offset: 10, length: 2 },
  ];
  return { precision, parameters, values, gradients };
}

describe('optimisers', () => {
  it('AdamW: the first step moves by the learning rate against the sign, beside the decay', () => {
    const set = parameterSet();
    const before = set.values.slice();
    createOptimizer(set, { method: 'adamw', epsilon: 0, weightDecay: 0.1 }).step({ learningRate: 0.01 });
    for (let i = 0; i < 12; i++)
      expect(set.values[i]).toBeCloseTo(before[i] * (1 - 0.001) - 0.01 * Math.sign(set.gradients[i]), 14);
  });

  it.each(['adamw', 'adam', 'sgd', 'lion'] as const)(
    '%s moves a parameter with a rate as one run at that rate',
    (method) => {
      const [rated, faster, plain] = [parameterSet(), parameterSet(), parameterSet()];
      const set = {
        ...rated,
        parameters: rated.parameters.map((one) => (one.name === 'b' ? { ...one, rate: 3 } : one)),
      };
      const [a, b, c] = [set, faster, plain].map((of) => createOptimizer(of, { method, weightDecay: 0.1 }));
      for (const learningRate of [0.01, 0.02]) {
        a.step({ learningRate });
        b.step({ learningRate: 3 * learningRate });
        c.step({ learningRate });
      }
      expect([...rated.values.subarray(0, 10)]).toEqual([...plain.values.subarray(0, 10)]);
      for (const i of [10, 11]) expect(rated.values[i]).toBeCloseTo(faster.values[i], 13);
    },
  );

  it('AdamW is the recurrence of its definition', () => {
    const gradients = [0.3, -0.2, 1e-3, 5];
    const set = parameterSet();
    const optimizer = createOptimizer(set, { method: 'adamw', beta1: 0.8, beta2: 0.95, weightDecay: 0.2 });
    let [p, m, v] = [set.values[2], 0, 0];
    for (const [k, g] of gradients.entries()) {
      const learningRate = 0.1 / (k + 1);
      set.gradients.fill(g * 4);
      optimizer.step({ learningRate, gradientScale: 0.25 });
      p *= 1 - learningRate * 0.2;
      m = 0.8 * m + 0.2 * g;
      v = 0.95 * v + 0.05 * g * g;
      p -= (learningRate * (m / (1 - 0.8 ** (k + 1)))) / (Math.sqrt(v / (1 - 0.95 ** (k + 1))) + 1e-8);
      expect(set.values[2]).toBeCloseTo(p, 13);
    }
    expect(optimizer.steps).toBe(4);
  });

  it('Lion moves by the learning rate and nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ noNaN: true, min: -1e3, max: 1e3 }), { minLength: 12, maxLength: 12 }), (g) => {
        const set = parameterSet();
        const before = set.values.slice();
        set.gradients.set(g.map((value) => (Math.abs(value) < 1e-300 ? 0 : value)));
        createOptimizer(set, { method: 'lion' }).step({ learningRate: 0.125 });
        for (let i = 0; i < 12; i++)
          expect(Math.abs(set.values[i] - before[i])).toBeCloseTo(Math.abs(g[i]) > 1e-300 ? 0.125 : 0, 12);
      }),
      { numRuns: 30 },
    );
  });

  it.each([
    ['adamw', 1 - 0.05 * 0.3],
    ['lion', 1 - 0.05 * 0.3],
    ['sgd', 1 - 0.05 * 0.3],
  ] as const)('%s: vectors are left out of the decay where that is asked', (method, shrink) => {
    for (const exemptVectors of [false, true]) {
      const set = parameterSet();
      const before = set.values.slice();
      set.gradients.fill(0);
      createOptimizer(set, { method, weightDecay: 0.3, exemptVectors }).step({ learningRate: 0.05 });
      for (let i = 0; i < 12; i++) {
        const vector = i >= 6 && i < 10;
        expect(set.values[i]).toBeCloseTo(before[i] * (exemptVectors && vector ? 1 : shrink), 14);
      }
    }
  });

  it.each(OPTIMIZERS)('%s: clears the gradients where that is asked, and resumes to the same bits', (method) => {
    const settings: OptimizerSettings =
      method === 'sgld'
        ? { method, dataCount: 10, seed: 4 }
        : method === 'sgd'
          ? { method, momentum: 0.9 }
          : { method };
    const gradients = parameterSet('f32').gradients;
    const whole = parameterSet('f32');
    const optimizer = createOptimizer(whole, settings);
    const halves = parameterSet('f32');
    let half = createOptimizer(halves, settings);
    for (let s = 0; s < 6; s++) {
      whole.gradients.set(gradients);
      optimizer.step({ learningRate: 0.01, clear: true });
      expect(whole.gradients).toEqual(new Float32Array(12));
      if (s === 3) {
        const next = createOptimizer(halves, settings);
        for (const [name, buffer] of Object.entries(half.state)) next.state[name].set(buffer);
        next.resumeAt(half.steps);
        half = next;
      }
      halves.gradients.set(gradients);
      half.step({ learningRate: 0.01 });
    }
    expect(halves.values).toEqual(whole.values);
  });

  it('Langevin sampling of a normal target has its mean and variance', () => {
    // U(theta) = n (theta - 1)^2 / 2 per coordinate: a normal of mean 1 and variance 1 / n.
    const n = 25;
    const set = parameterSet();
    const optimizer = createOptimizer(set, { method: 'sgld', dataCount: n, seed: 8 });
    let [count, sum, squares] = [0, 0, 0];
    for (let s = 0; s < 6000; s++) {
      for (let i = 0; i < 12; i++) set.gradients[i] = set.values[i] - 1;
      optimizer.step({ learningRate: 0.004 });
      if (s < 500) continue;
      for (const value of set.values) {
        count++;
        sum += value;
        squares += (value - 1) ** 2;
      }
    }
    expect(sum / count).toBeCloseTo(1, 1);
    // Euler's step makes the variance larger by 1 / (1 - eta n / 4).
    expect((squares / count) * n).toBeGreaterThan(0.95);
    expect((squares / count) * n).toBeLessThan(1.1);
  });

  it.each([
    [{ method: 'lionn' as 'lion' }, 'unknown optimizer "lionn"; did you mean "lion"?'],
    [{ method: 'adamw', momentum: 0.9 } as const, 'optimizer adamw has no momentum'],
    [{ method: 'adamw', beta1: 1 } as const, 'beta1 1 must lie in [0, 1)'],
    [{ method: 'lion', weightDecay: -1 } as const, 'weightDecay -1 must lie in'],
    [{ method: 'sgld' } as const, 'needs dataCount'],
  ])('refuses %j', (settings, message) => {
    expect(() => createOptimizer(parameterSet(), settings)).toThrow(message);
  });

  it('refuses parameters that leave gaps', () => {
    const set = parameterSet();
    const parameters = set.parameters.filter(({ name }) => name !== 'bias');
    expect(() => createOptimizer({ ...set, parameters }, { method: 'adamw' })).toThrow('parameter b begins at 10');
  });
});
