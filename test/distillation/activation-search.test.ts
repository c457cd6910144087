import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { activationOf, likeliestBranch, NAMED_ACTIVATIONS } from '../../src/distillation/activation-bases.js';
import { parseActivation } from '../../src/distillation/activation-expression.js';
import { runActivationSearch } from '../../src/distillation/activation-job.js';
import { searchActivation } from '../../src/distillation/activation-search.js';
import { crrelu, crreluGradients } from '../../src/distillation/crrelu.js';
import { fittedDensity, kernelDensity, normalDensity } from '../../src/distillation/input-density.js';
import { cubicSpline, evaluateSpline } from '../../src/linalg/cubic-spline.js';
import { gaussLegendre } from '../../src/linalg/quadrature-nodes.js';
import { createRandom } from '../../src/random.js';

const SETTINGS = { nodes: 200, eps: [0.05, 0.1], tail: 1e-6, leastSlope: 0, tableRows: 65 };

describe('expressions of activations', () => {
  it('carry the derivatives that differences of their values give', () => {
    const texts = [
      ...Object.values(NAMED_ACTIVATIONS),
      'x^3 - 2 * x',
      'exp(-x^2 / 2) * sin(x)',
      '(1 + x^2)^0.5',
      '2^x',
    ];
    const h = 1e-4;
    for (const text of [...texts, 'log1p(exp(x)) / (1 + x^2)', 'erf(x) + sqrt(2 + cos(x))', '-x^2 + max(x, 0.1)']) {
      const f = parseActivation(text);
      for (const x of [-1.7, -0.3, 0.9, 2.2]) {
        for (const order of [1, 2, 3] as const) {
          const slope = (f(x + h)[order - 1] - f(x - h)[order - 1]) / (2 * h);
          expect(f(x)[order], `${text}, derivative ${order} at ${x}`).toBeCloseTo(slope, 5);
        }
      }
    }
  });

  it('say what cannot be read', () => {
    expect(() => parseActivation('x *')).toThrow(/character 4: the expression ends here/);
    expect(() => parseActivation('x * sigmod(x)')).toThrow(/did you mean "sigmoid"/);
    expect(() => parseActivation('max(x)')).toThrow(/"," is missing/);
    expect(() => parseActivation('x ) + 1')).toThrow(/"\)" is not expected/);
  });
});

describe('the search', () => {
  it('finds that the correction of ReLU is x exp(-x²/2), and that the entropy falls by its square', () => {
    const found = searchActivation(activationOf('relu'), normalDensity(), SETTINGS);
    expect(found.excludedMass).toBeCloseTo(0.5, 12);
    const { input, correction } = found.table;
    for (const [i, u] of input.entries()) {
      expect(correction[i]).toBeCloseTo((u * Math.exp((-u * u) / 2)) / Math.sqrt(2 * Math.PI), 12);
    }
    // Half of 1 / (8 sqrt(pi)): the integral of x² exp(-x²) / (2 pi) over x > 0.
    expect(found.firstVariation).toBeCloseTo(-Math.sqrt(Math.PI) / 4 / (2 * Math.PI), 6);
    expect(found.numericDerivative).toBeCloseTo(found.firstVariation + found.boundaryTerm, 6);
    expect(found.applied.eps).toBe(0.1);
    expect(found.applied.nats).toBeLessThan(found.entropyNats);
    expect(found.fit.coefficient).toBeCloseTo(-0.1, 2);
  });

  it('leaves the distribution function alone, and stops where the inverse no longer increases', () => {
    const still = searchActivation(activationOf('cdf'), normalDensity(), SETTINGS);
    expect(still.firstVariation).toBeCloseTo(0, 12);
    expect(still.entropyNats - still.logRange).toBeCloseTo(0, 5);
    const { admissible } = searchActivation(activationOf('sigmoid'), normalDensity(), SETTINGS);
    const at = (apply: number) => searchActivation(activationOf('sigmoid'), normalDensity(), { ...SETTINGS, apply });
    expect(at(0.999 * admissible.high).applied.increasing).toBe(true);
    expect(at(1.001 * admissible.high).applied.increasing).toBe(false);
    expect(at(1.001 * admissible.high).applied.nats).toBeNaN();
  });

  it('takes the increasing branch, and refuses a function without one', () => {
    const branch = likeliestBranch(activationOf('gelu'), normalDensity());
    expect(branch.low).toBeCloseTo(-0.7517915, 6);
    expect(branch.mass).toBeCloseTo(0.77391, 4);
    expect(likeliestBranch(activationOf('gelu'), normalDensity(), 0.2).low).toBeGreaterThan(-0.7);
    expect(() => likeliestBranch(parseActivation('0 - x'), normalDensity())).toThrow(/increases on no stretch/);
  });

  it('gives for a table what it gives for the function', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'activation-'));
    const lines = ['x,y'];
    for (let i = -400; i <= 400; i++) lines.push(`${i / 50},${Math.tanh(i / 50)}`);
    writeFileSync(join(folder, 'tanh.csv'), `${lines.join('\n')}\n`);
    const shared = { density: 'normal' as const, mean: 0, deviation: 1, settings: SETTINGS };
    const table = await runActivationSearch({
      ...shared,
      base: { table: { kind: 'file', path: join(folder, 'tanh.csv') } },
    });
    const named = await runActivationSearch({ ...shared, base: { text: 'tanh' } });
    expect(table.entropyNats).toBeCloseTo(named.entropyNats, 5);
    expect(table.firstVariation).toBeCloseTo(named.firstVariation, 3);
  });

  it('lowers the plug-in entropy of recorded inputs', () => {
    const random = createRandom(3);
    const recorded = Float64Array.from(
      { length: 20_000 },
      () => random.normal() + (random.uniform() < 0.4 ? 2 : -1),
    ).sort();
    const density = kernelDensity(recorded);
    const found = searchActivation(activationOf('sigmoid'), density, { ...SETTINGS, apply: 0.1 }, recorded);
    const { before = 0, after = 0, insideBefore = 0 } = found.plugIn ?? {};
    expect(before).toBeCloseTo(found.entropyNats, 1);
    expect(after).toBeLessThan(before);
    expect(insideBefore).toBeGreaterThan(0.999);
  });
});

describe('densities of inputs', () => {
  it('agree with the sum over all kernels, and with their own derivatives', () => {
    const random = createRandom(8);
    const sorted = Float64Array.from({ length: 3000 }, () => 2 * random.normal() + 1).sort();
    const density = kernelDensity(sorted);
    const width = density.bandwidth ?? 0;
    for (const u of [-3, 0.5, 4]) {
      let exact = 0;
      for (const x of sorted)
        exact += Math.exp(-(((u - x) / width) ** 2) / 2) / (width * Math.sqrt(2 * Math.PI) * 3000);
      expect(density.at(u)[0]).toBeCloseTo(exact, 6);
      const h = 1e-4;
      expect(density.at(u)[1]).toBeCloseTo((density.at(u + h)[0] - density.at(u - h)[0]) / (2 * h), 6);
      expect(density.at(u)[2]).toBeCloseTo((density.at(u + h)[1] - density.at(u - h)[1]) / (2 * h), 6);
      expect(density.at(u)[0]).toBeCloseTo((density.below(u + h) - density.below(u - h)) / (2 * h), 5);
    }
    expect(fittedDensity(sorted).mean).toBeCloseTo(1, 1);
    expect(() => kernelDensity(new Float64Array(5))).toThrow(/do not vary/);
  });
});

describe('helpers', () => {
  it('differentiate CRReLU', () => {
    const x = [-3, -0.5, 0, 0.2, 1.5, 1e200];
    const g = [1, -2, 3, 0.5, 1, 1];
    const { x: slopes, epsilon } = crreluGradients(x, 0.3, g);
    const h = 1e-6;
    const sum = (at: readonly number[], eps: number): number =>
      crrelu(at, eps).reduce((total, value, i) => total + (i < 5 ? g[i] * value : 0), 0);
    expect(epsilon).toBeCloseTo((sum(x, 0.3 + h) - sum(x, 0.3 - h)) / (2 * h), 6);
    for (const i of [0, 1, 3, 4]) {
      const moved = (d: number): number[] => x.map((value, j) => value + (j === i ? d : 0));
      expect(slopes[i]).toBeCloseTo((sum(moved(h), 0.3) - sum(moved(-h), 0.3)) / (2 * h), 6);
    }
    expect(slopes[2]).toBeCloseTo(0.9, 12);
    expect(slopes[5]).toBe(1);
  });

  it('integrate polynomials exactly and interpolate smooth functions', () => {
    const { values, weights } = gaussLegendre(6, -1, 3);
    expect(values.reduce((sum, x, i) => sum + weights[i] * x ** 11, 0)).toBeCloseTo((3 ** 12 - 1) / 12, 6);
    const x = Float64Array.from({ length: 101 }, (_, i) => i / 10);
    const spline = cubicSpline(x, x.map(Math.sin));
    for (const at of [0.55, 3.14, 9.33]) {
      const [value, slope, bend] = evaluateSpline(spline, at);
      expect(value).toBeCloseTo(Math.sin(at), 5);
      expect(slope).toBeCloseTo(Math.cos(at), 3);
      expect(bend).toBeCloseTo(-Math.sin(at), 2);
    }
    expect(() => cubicSpline(new Float64Array([1, 1]), new Float64Array(2))).toThrow(/does not increase/);
  });
});
