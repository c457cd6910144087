import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { analyseLaws, earlyPoints } from '../../../src/policy/law/law-analysis.js';
import { bootstrapLaw } from '../../../src/policy/law/law-bootstrap.js';
import { joinRun } from '../../../src/policy/law/law-data.js';
import { fitLaw, predictFromEarly, predictLaw } from '../../../src/policy/law/law-fit.js';
import { createRandom } from '../../../src/random.js';

/** A run with noise of deviation `noise` whose entropy decays. */
function makeRun(a: number, b: number, n: number, noise: number, seed = 1) {
  const random = createRandom(seed);
  const entropy = Float64Array.from({ length: n }, (_, i) => 0.7 * Math.exp(-i / (n / 4)) + 0.03);
  return { entropy, performance: entropy.map((h) => -a * Math.exp(h) + b + noise * random.normal()) };
}
const step = (n: number): Float64Array => Float64Array.from({ length: n }, (_, i) => i);
const options = { early: { share: 0.15 }, earlyAsked: false, seed: 0, draws: 200, level: 0.9, predictParams: [] };

const ORACLE = {
  fit: [0.19340942758882276, 0.7947516251247962, 0.009735636197472954, 0.016650551614266172],
  ceilingError: 0.007762781459390328,
  predicted: [0.5677985300051834, 0.5914864201858456],
  halfWidth: [0.053148968600563964, 0.05670030866997202],
};

describe('fit', () => {
  it('finds a and b of any law, also where entropies are tiny', () => {
    fc.assert(
      fc.property(
        fc.double({ min: -2, max: 2, noNaN: true }),
        fc.double({ min: -2, max: 2, noNaN: true }),
        fc.constantFrom(1, 1e-3, 1e-6),
        (a, b, scale) => {
          const entropy = Float64Array.of(0.7, 0.5, 0.3, 0.2).map((h) => h * scale);
          const law = fitLaw({ entropy, performance: entropy.map((h) => b - a - a * Math.expm1(h)) });
          // A performance of order 1 has 1e-16 of its own; over a range of `scale` it moves a by 1e-16 / scale.
          expect(Math.abs(law.a - a)).toBeLessThan(1e-14 / scale);
          expect(Math.abs(law.ceiling - (b - a))).toBeLessThan(1e-13);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('has the standard errors and prediction intervals of least squares', () => {
    // SciPy curve_fit and the t interval by NumPy on the same six points.
    const entropy = Float64Array.of(0.9, 0.7, 0.5, 0.35, 0.2, 0.1);
    const performance = Float64Array.of(0.31, 0.42, 0.47, 0.53, 0.55, 0.58);
    const law = fitLaw({ entropy, performance });
    expect([law.a, law.b, law.aError, law.bError]).toEqual(ORACLE.fit.map((value) => expect.closeTo(value, 7)));
    expect(law.ceilingError).toBeCloseTo(ORACLE.ceilingError, 7);
    const early = predictFromEarly({ entropy, performance }, 4, 0.9);
    expect([...early.predicted]).toEqual(ORACLE.predicted.map((value) => expect.closeTo(value, 9)));
    expect([...early.halfWidth]).toEqual(ORACLE.halfWidth.map((value) => expect.closeTo(value, 9)));
  });

  it('refuses what no law can be fitted to', () => {
    const same = { entropy: Float64Array.of(0.5, 0.5, 0.4), performance: Float64Array.of(1, 2, 3) };
    expect(() => fitLaw(same)).toThrow('need at least 3 distinct entropy values, got 2');
    expect(() => fitLaw({ entropy: Float64Array.of(-1, 2, 3), performance: step(3) })).toThrow('entropy -1');
    expect(() => fitLaw({ entropy: Float64Array.of(1, 2, 800), performance: step(3) })).toThrow('entropy 800');
  });
});

describe('intervals', () => {
  it('hold the truth about as often as they say, and blocks do not change independent points much', () => {
    let held = 0;
    for (let seed = 0; seed < 60; seed++) {
      const run = makeRun(0.2, 0.8, 40, 0.01, seed);
      const found = bootstrapLaw(run, { seed, draws: 200, level: 0.9, block: 1 });
      if (found && found.ceiling.low <= 0.6 && 0.6 <= found.ceiling.high) held++;
    }
    expect(held / 60).toBeGreaterThan(0.75);
    const run = makeRun(0.2, 0.8, 200, 0.01);
    const [points, blocks] = [1, 6].map((block) => bootstrapLaw(run, { seed: 0, draws: 400, level: 0.9, block }));
    expect((blocks?.ceiling.standardError ?? 0) / (points?.ceiling.standardError ?? 1)).toBeGreaterThan(0.6);
    expect(bootstrapLaw(run, { seed: 0, draws: 50, level: 0.9, block: 3 })).toEqual(
      bootstrapLaw(run, { seed: 0, draws: 50, level: 0.9, block: 3 }),
    );
  });
});

describe('runs', () => {
  it('joins on equal steps alone', () => {
    const steps = { run: 'r', step: step(6), entropy: Float64Array.of(0.6, 0.5, 0.4, 0.3, Number.NaN, 0.1) };
    const joined = joinRun(
      steps,
      new Map([
        [0, 0.1],
        [2, 0.2],
        [2.5, 0.3],
        [4, 0.5],
        [5, 0.6],
      ]),
    );
    expect([...joined.step]).toEqual([0, 2, 5]);
    expect([...joined.performance]).toEqual([0.1, 0.2, 0.6]);
    expect(joined.entropyOnly).toEqual([1, 3]);
    expect(joined.evaluationOnly).toEqual([2.5, 4]);
    expect(() => joinRun(steps, new Map([[9, 1]]))).toThrow('no step has both an entropy and a performance');
  });

  it('regress a and b on ln(parameters), and warn where the law does not hold', () => {
    const runs = [1e8, 1e9, 1e10].map((params, k) => {
      const [a, b] = [0.1 + 0.05 * Math.log(params), 0.3 + 0.06 * Math.log(params)];
      return joinRun({ run: `r${k}`, params, step: step(40), ...makeRun(a, b, 40, 0) });
    });
    const found = analyseLaws(runs, { ...options, draws: 0, predictParams: [1e11] });
    expect(found.scaling?.a.slope).toBeCloseTo(0.05, 10);
    expect(found.scaling?.b.slope).toBeCloseTo(0.06, 10);
    expect(found.scaling?.predicted[0].a).toBeCloseTo(0.1 + 0.05 * Math.log(1e11), 9);
    const falling = joinRun({ run: 'f', step: step(40), ...makeRun(-0.2, 0.1, 40, 0.001) });
    expect(analyseLaws([falling], options).warnings.join()).toContain('entropy and performance fall together');
    const few = joinRun({ run: 'few', step: step(3), ...makeRun(0.2, 0.8, 3, 0) });
    expect(analyseLaws([few], options).warnings.join()).toContain('no early fit');
    expect(() => analyseLaws([few], { ...options, early: { points: 3 }, earlyAsked: true })).toThrow('leaves none');
    expect(earlyPoints({ share: 0.15 }, 236)).toBe(35);
  });

  it('predicts itself', () => {
    const run = makeRun(0.2, 0.8, 10, 0);
    expect([...predictLaw(fitLaw(run), run.entropy)]).toEqual([...run.performance].map((r) => expect.closeTo(r, 12)));
  });
});
