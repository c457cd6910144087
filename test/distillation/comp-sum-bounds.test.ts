import { describe, expect, test } from 'vitest';
import { gatherCompSum } from '../../src/distillation/comp-sum-audit.js';
import {
  bestConditionalRisk,
  errorOfSurrogate,
  simpleErrorBound,
  surrogateOfError,
} from '../../src/distillation/comp-sum-bounds.js';
import { compSumOfLogProbability } from '../../src/kernels/loss-rows-reference.js';
import { createRandom } from '../../src/random.js';

const TAUS = [0, 0.5, 0.999, 1, 1.001, 1.3, 1.7, 1.99, 2, 3];

function dirichlet(random: ReturnType<typeof createRandom>, classes: number): Float64Array {
  const draws = Float64Array.from({ length: classes }, () => Math.exp(2 * random.normal()));
  const sum = draws.reduce((a, b) => a + b, 0);
  return draws.map((value) => value / sum);
}

describe.each(TAUS)('tau %d', (tau) => {
  test('Gamma inverts T, and the simple bound is above it', () => {
    for (const classes of [2, 5]) {
      for (const beta of [1e-3, 0.05, 0.4, 0.9, 1]) {
        const excess = surrogateOfError(beta, tau, classes);
        expect(errorOfSurrogate(excess, tau, classes)).toBeCloseTo(beta, 9);
        expect(simpleErrorBound(excess, tau, classes)).toBeGreaterThanOrEqual(beta - 1e-12);
      }
      expect(errorOfSurrogate(0, tau, classes)).toBe(0);
      expect(errorOfSurrogate(Number.POSITIVE_INFINITY, tau, classes)).toBe(1);
    }
  });

  test('no draw violates the bound, and no scores beat the best conditional risk', () => {
    const random = createRandom(7);
    for (let trial = 0; trial < 300; trial++) {
      const classes = 2 + (trial % 4);
      const p = dirichlet(random, classes);
      const scores = Float64Array.from(dirichlet(random, classes), Math.log);
      const gatherer = gatherCompSum({ taus: [tau], classes });
      gatherer.add({ rows: 1, logits: scores, conditional: p });
      const { by_tau } = gatherer.finish();
      expect(by_tau[0].bound_holds).toBe(true);
      expect(by_tau[0].surrogate_excess).toBeGreaterThan(-1e-9);
    }
  });

  test('the best risk is reached at p^(1 / (2 - tau)) below 2, and by a vertex from 2 on', () => {
    const p = Float64Array.of(0.5, 0.3, 0.2);
    const best = bestConditionalRisk(p, tau);
    if (tau >= 2) {
      expect(best).toBeCloseTo(0.5 / (tau - 1), 12);
      return;
    }
    const powered = p.map((value) => value ** (1 / (2 - tau)));
    const sum = powered.reduce((a, b) => a + b, 0);
    const risk = p.reduce(
      (total, share, i) => total + share * compSumOfLogProbability(Math.log(powered[i] / sum), tau),
      0,
    );
    expect(best).toBeCloseTo(risk, 10);
  });
});

test('rows that overflow are named and do not hide the others', () => {
  const gatherer = gatherCompSum({ taus: [0, 1], classes: 2, scoreBound: 3 });
  gatherer.add({ rows: 2, firstRow: 5, logits: Float64Array.of(0, 800, 1, 0), labels: Int32Array.of(0, 0) });
  const audit = gatherer.finish();
  expect(audit.overflowing_rows).toEqual([5]);
  expect(audit.by_tau[0].mean_loss).toBe(Number.POSITIVE_INFINITY);
  expect(audit.by_tau[0].gamma_exact).toBe(1);
  expect(audit.by_tau[1].mean_loss).toBeCloseTo((800 + Math.log1p(Math.exp(-1))) / 2, 9);
  expect(audit.by_tau[1].best_bounded_loss).toBeCloseTo(Math.log1p(Math.exp(-6)), 12);
  expect(audit.error_on_labels).toBe(0.5);
});
