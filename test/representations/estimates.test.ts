import { describe, expect, it } from 'vitest';
import { withProducts } from '../../src/linalg/tiled-products.js';
import { chooseMethod, exactBytes } from '../../src/representations/entropy-estimate.js';
import { estimateEntropy } from '../../src/representations/entropy-methods.js';
import type { EntropyMethod, RepresentationSettings } from '../../src/representations/settings.js';
import { blobs, SETTINGS } from './clouds.js';

const estimate = (
  cloud: ReturnType<typeof blobs>,
  sigma: number,
  method: EntropyMethod,
  settings: Partial<RepresentationSettings> = {},
) =>
  withProducts({ threads: settings.threads ?? 2 }, (products) =>
    estimateEntropy(cloud, sigma, method, { products, settings: { ...SETTINGS, ...settings } }),
  );

describe('methods of the entropy', () => {
  const cloud = blobs(500, 4, 5, 2);

  it.each(['K', 'P'] as const)(
    'quadrature lies within 3 standard errors of the spectrum, operator %s',
    async (operator) => {
      const times = [1, 2, 5];
      const exact = await estimate(cloud, 3, 'exact', { times, operator });
      const slq = await estimate(cloud, 3, 'slq', { times, operator });
      expect(slq.method).toBe('slq');
      expect(slq.eigenvalues).toBeNull();
      expect(slq.meanSimilarity).toBeCloseTo(exact.meanSimilarity, 10);
      times.forEach((_, k) => {
        const error = slq.standardErrorBits?.[k] ?? 0;
        expect(error).toBeGreaterThan(0);
        expect(error).toBeLessThan(0.05);
        expect(Math.abs(slq.bits[k] - exact.bits[k])).toBeLessThan(3 * error);
      });
    },
  );

  it.each(['K', 'P'] as const)('errors of quadrature are as large as claimed, operator %s', async (operator) => {
    const times = [1, 2, 5];
    const small = blobs(200, 4, 5, 2);
    const exact = await estimate(small, 2, 'exact', { times, operator });
    const seeds = 30;
    const squares = new Float64Array(times.length);
    for (let seed = 0; seed < seeds; seed++) {
      const { bits, standardErrorBits } = await estimate(small, 2, 'slq', { times, operator, seed, probes: 32 });
      times.forEach((_, k) => {
        const z = (bits[k] - exact.bits[k]) / (standardErrorBits?.[k] ?? 0);
        squares[k] += (z * z) / seeds;
      });
    }
    // The mean of 30 squares of normal numbers leaves 0.4..1.9 once in a thousand times.
    for (const square of squares) {
      expect(square).toBeGreaterThan(0.35);
      expect(square).toBeLessThan(2);
    }
  });

  it('quadrature keeps to its memory, with the same figures', async () => {
    const mebibyte = 2 ** 20;
    const small = blobs(600, 4, 5, 2);
    const all = await estimate(small, 3, 'slq');
    const little = await estimate(small, 3, 'slq', { maxMemoryBytes: 24 * mebibyte });
    expect(Array.from(little.bits)).toEqual(Array.from(all.bits));
    await expect(estimate(small, 3, 'slq', { maxMemoryBytes: 18 * mebibyte })).rejects.toThrow(/raise --max-memory/);
  });

  it('random features come near, half of them less reliably', async () => {
    const small = blobs(600, 4, 3, 3);
    const exact = await estimate(small, 2.5, 'exact');
    const found = await estimate(small, 2.5, 'fkea', { features: 512 });
    const error = Math.abs(found.bits[0] - exact.bits[0]);
    expect(error).toBeLessThan(0.1);
    expect(Math.abs((found.halfRankBits?.[0] ?? 0) - exact.bits[0])).toBeLessThan(0.2);
    const claimed = found.standardErrorBits?.[0] ?? 0;
    expect(error).toBeLessThan(4 * claimed);
    expect(claimed).toBeLessThan(0.1);
    // Whatever the noise, sqrt(deg) is an eigenvector with the eigenvalue 1.
    const nearest = Math.min(...Array.from(found.eigenvalues ?? [], (value) => Math.abs(value - 1)));
    expect(nearest).toBeLessThan(1e-8);
  });

  it.each(['K', 'P'] as const)('landmarks at every point give the spectrum itself, operator %s', async (operator) => {
    const small = blobs(120, 4, 3, 3);
    const exact = await estimate(small, 2, 'exact', { times: [1, 2], operator });
    const found = await estimate(small, 2, 'nystrom', { times: [1, 2], operator, landmarks: 120 });
    found.bits.forEach((bits, k) => {
      expect(bits).toBeCloseTo(exact.bits[k], 5);
    });
  });

  it('refuses random features that are too coarse for the bandwidth', async () => {
    await expect(estimate(blobs(600, 8, 3, 3), 0.2, 'fkea', { features: 8 })).rejects.toThrow(/too coarse.*degree/);
  });

  it('gives the same bits for any number of threads', async () => {
    const small = blobs(300, 6, 3, 5);
    for (const method of ['exact', 'slq', 'fkea', 'nystrom'] as const) {
      const [one, two] = await Promise.all([
        estimate(small, 3, method, { threads: 1 }),
        estimate(small, 3, method, { threads: 2 }),
      ]);
      expect(Array.from(two.bits)).toEqual(Array.from(one.bits));
    }
  });

  it('one point has entropy 0 by every method', async () => {
    for (const method of ['exact', 'slq', 'fkea', 'nystrom'] as const) {
      const found = await estimate(blobs(1, 3, 1, 1), 1, method, { times: [1, 4] });
      expect(Array.from(found.bits)).toEqual([0, 0]);
    }
  });

  it('chooses by rows and memory, and says what an exact spectrum would hold', () => {
    expect(chooseMethod('auto', 10_000, 64, 2 ** 31, 'x')).toBe('exact');
    expect(chooseMethod('auto', 10_001, 64, 2 ** 40, 'x')).toBe('slq');
    expect(chooseMethod('auto', 10_000, 64, 2 ** 28, 'x')).toBe('slq');
    expect(exactBytes(10_000, 64)).toBeGreaterThan(8e8);
    expect(() => chooseMethod('exact', 10_000, 64, 2 ** 28, 'file.npy')).toThrow(
      /file\.npy: an exact spectrum of 10000 rows holds \d+ MiB, --max-memory is 256 MiB; take --method slq/,
    );
  });
});
