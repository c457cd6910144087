import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { entropyChange, firstOrderEntropyChange, softmaxEntropy } from '../../src/policy/entropy-change.js';

const actions = 5;
const row = fc.array(fc.double({ min: -6, max: 6, noNaN: true }), { minLength: actions, maxLength: actions });

describe('entropyChange', () => {
  it('does not change when a constant is added to the advantages', () => {
    fc.assert(
      fc.property(row, row, fc.double({ min: -50, max: 50, noNaN: true }), (z, a, shift) => {
        const logits = Float64Array.from(z);
        const of = (advantages: Float64Array) => entropyChange({ states: 1, actions, logits, advantages }, 0.1, 'pg');
        const plain = of(Float64Array.from(a));
        const shifted = of(Float64Array.from(a, (value) => value + shift));
        expect(shifted.predicted[0]).toBeCloseTo(plain.predicted[0], 12);
        expect(shifted.exact[0]).toBeCloseTo(plain.exact[0], 12);
      }),
      { numRuns: 50 },
    );
  });

  it('is right to first order: the error falls with the square of the step', () => {
    const policy = {
      states: 1,
      actions,
      logits: Float64Array.of(1, -0.5, 0.3, 2, -1),
      advantages: Float64Array.of(0.4, -1, 2, 0.1, -0.3),
    };
    for (const rule of ['pg', 'npg'] as const) {
      const error = (eta: number): number => {
        const { predicted, exact } = entropyChange(policy, eta, rule);
        return Math.abs(predicted[0] - exact[0]);
      };
      expect(error(1e-2) / error(1e-3)).toBeGreaterThan(90);
      expect(error(1e-2) / error(1e-3)).toBeLessThan(110);
    }
  });

  it('is zero at the uniform policy to first order', () => {
    expect(firstOrderEntropyChange(new Float64Array(4), Float64Array.of(1, 2, 3, 4))).toBeCloseTo(0, 15);
    expect(softmaxEntropy(new Float64Array(4))).toBeCloseTo(Math.log(4), 15);
  });

  it('leaves out actions that cannot be taken', () => {
    const logits = Float64Array.of(0, Number.NEGATIVE_INFINITY, 1);
    expect(softmaxEntropy(logits)).toBeCloseTo(softmaxEntropy(Float64Array.of(0, 1)), 15);
    expect(firstOrderEntropyChange(logits, Float64Array.of(1, 5, 0))).toBeCloseTo(
      firstOrderEntropyChange(Float64Array.of(0, 1), Float64Array.of(1, 0)),
      15,
    );
  });

  it('refuses arrays of another shape', () => {
    const one = new Float64Array(3);
    expect(() => entropyChange({ states: 1, actions: 4, logits: one, advantages: one }, 1, 'pg')).toThrow(RangeError);
  });
});
