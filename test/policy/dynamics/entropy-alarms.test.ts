import { describe, expect, it } from 'vitest';
import { entropyAlarms, rankSuspects } from '../../../src/policy/dynamics/entropy-alarms.js';
import { fitThroughOrigin, measuredChange } from '../../../src/policy/dynamics/predicted-change.js';

const steps = Float64Array.from({ length: 20 }, (_, t) => 10 * t);

describe('entropyAlarms', () => {
  it('finds a collapse and since when', () => {
    const entropy = Float64Array.from(steps, (_, t) => 2 * Math.exp(-t / 4));
    const [alarm, ...more] = entropyAlarms(steps, entropy);
    expect(more).toEqual([]);
    expect(alarm).toMatchObject({ kind: 'collapse', step: 60 });
  });

  it('finds a surge behind a fall, and nothing in a level run', () => {
    const entropy = Float64Array.from(steps, (_, t) => (t < 10 ? 1 - t / 20 : 0.5 + (t - 10) / 10));
    expect(entropyAlarms(steps, entropy).map(({ kind }) => kind)).toEqual(['surge']);
    expect(entropyAlarms(steps, new Float64Array(20).fill(1))).toEqual([]);
    expect(entropyAlarms(steps.subarray(0, 3), entropy.subarray(0, 3))).toEqual([]);
  });
});

describe('rankSuspects', () => {
  it('puts what goes with the changes first and what never changes last', () => {
    const change = Float64Array.from(steps, (_, t) => Math.sin(t));
    const ranked = rankSuspects(
      [
        { name: 'constant', values: new Float64Array(20), level: 0.2 },
        { name: 'unrelated', values: Float64Array.from(steps, (_, t) => Math.cos(7 * t)) },
        { name: 'opposite', values: change.map((value) => -value), level: 0.5 },
      ],
      change,
    );
    expect(ranked.map(({ name }) => name)).toEqual(['opposite', 'unrelated', 'constant']);
    expect(ranked[0].correlation).toBeCloseTo(-1, 12);
    expect(ranked[0].pValue).toBeLessThan(1e-6);
    expect([ranked[0].level, ranked[1].level]).toEqual([0.5, null]);
    expect(ranked[2].correlation).toBeNaN();
  });
});

describe('fitThroughOrigin', () => {
  it('finds the step size that made the changes', () => {
    const covariance = Float64Array.of(0.2, 0.1, -0.05, 0.3, 0.1);
    const entropy = Float64Array.of(1, 0, 0, 0, 0);
    for (let t = 0; t < 4; t++) entropy[t + 1] = entropy[t] - 0.7 * covariance[t];
    const fit = fitThroughOrigin(covariance, measuredChange(entropy));
    expect(fit.pairs).toBe(4);
    expect(fit.eta).toBeCloseTo(0.7, 12);
    expect([fit.r2, fit.signAgreement, fit.correlation].map((value) => value.toFixed(9))).toEqual(
      new Array(3).fill('1.000000000'),
    );
  });

  it('says nothing of nothing', () => {
    const fit = fitThroughOrigin(new Float64Array(3), measuredChange(Float64Array.of(1, 2, 3)));
    expect(fit.eta).toBeNaN();
    expect(fitThroughOrigin(new Float64Array(0), new Float64Array(0)).pairs).toBe(0);
  });
});
