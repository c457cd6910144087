import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { generalEigenvalues } from '../../src/linalg/general-eigenvalues.js';
import { directSquaredDistances } from '../../src/linalg/point-distances.js';
import { withProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';
import { neighbourAdjacencyEntropyBits, neighbourGraph } from '../../src/representations/adjacency-entropy.js';
import { binnedEntropy, scalarBins } from '../../src/representations/binned-entropy.js';
import { diffusionSpectrum } from '../../src/representations/diffusion-entropy.js';
import {
  type DiffusionOperator,
  diffusionOperator,
  gaussianKernel,
  gaussianKernelOfPoints,
  matrixEntryEntropyBits,
} from '../../src/representations/diffusion-kernel.js';
import type { PointCloud } from '../../src/representations/points.js';
import { shareAbove, spectralEntropy } from '../../src/representations/spectral-entropy.js';
import { blobs } from './clouds.js';

const kernelOf = ({ data, n, d }: PointCloud, sigma: number): Float64Array => {
  const kernel = directSquaredDistances(data as Float64Array, n, d);
  gaussianKernel(kernel, n, sigma);
  return kernel;
};
const spectrumOf = (cloud: PointCloud, sigma: number, operator: DiffusionOperator = 'K'): Float64Array =>
  diffusionSpectrum(kernelOf(cloud, sigma), cloud.n, operator).eigenvalues;
const bitsOf = (cloud: PointCloud, sigma: number, t = 1): number => spectralEntropy(spectrumOf(cloud, sigma), t).bits;

describe('entropy of a spectrum', () => {
  it('is log2 n for equal eigenvalues whatever their size, sign and power', () => {
    for (const value of [1e-200, -3, 1, 1e200]) {
      for (const t of [0.5, 1, 2, 100]) {
        const found = spectralEntropy(new Float64Array(8).fill(value), t);
        expect(found.bits).toBeCloseTo(3, 12);
        expect(found.nats).toBeCloseTo(3 * Math.LN2, 12);
      }
    }
  });

  it('is that of the powered shares, and 0 for one eigenvalue or none', () => {
    const shares = [4 / 7, 2 / 7, 1 / 7];
    const expected = -shares.reduce((sum, p) => sum + p * Math.log2(p), 0);
    expect(spectralEntropy([2, -Math.SQRT2, 1, 0], 2).bits).toBeCloseTo(expected, 12);
    expect(spectralEntropy([5, 0, 0], 3).bits).toBe(0);
    expect(spectralEntropy([0, 0], 1).bits).toBe(0);
    expect(spectralEntropy([], 1).bits).toBe(0);
  });

  it('does not rise with the diffusion time', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 30 }), (values) => {
        const bits = [1, 2, 5, 30].map((t) => spectralEntropy(values, t).bits);
        for (let k = 1; k < bits.length; k++) expect(bits[k]).toBeLessThanOrEqual(bits[k - 1] + 1e-9);
      }),
    );
  });

  it('counts the powered eigenvalues above a threshold', () => {
    expect(shareAbove([1, 0.2, -0.2, 0.05], 1, 0.1)).toBe(0.75);
    expect(shareAbove([1, 0.2, -0.2, 0.05], 2, 0.1)).toBe(0.25);
  });
});

describe('diffusion operators', () => {
  const cloud = blobs(40, 5, 3, 1);

  it('K has the spectrum of the row-stochastic diag(G1)^-1 G, whose largest eigenvalue is 1', () => {
    const { n } = cloud;
    const kernel = kernelOf(cloud, 2);
    const stochastic = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      let degree = 0;
      for (let j = 0; j < n; j++) degree += kernel[Math.max(i, j) * n + Math.min(i, j)];
      for (let j = 0; j < n; j++) stochastic[i * n + j] = kernel[Math.max(i, j) * n + Math.min(i, j)] / degree;
    }
    const general = generalEigenvalues(stochastic, n).real.sort().reverse();
    const found = spectrumOf(cloud, 2);
    expect(found[0]).toBeCloseTo(1, 12);
    found.forEach((value, i) => {
      expect(value).toBeCloseTo(general[i], 11);
    });
  });

  it('P has the spectrum of diag(K1)^-1 K, which is not that of K', () => {
    const { n } = cloud;
    const matrix = kernelOf(cloud, 2);
    diffusionOperator(matrix, n, 'K');
    const stochastic = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      let degree = 0;
      for (let j = 0; j < n; j++) degree += matrix[Math.max(i, j) * n + Math.min(i, j)];
      for (let j = 0; j < n; j++) stochastic[i * n + j] = matrix[Math.max(i, j) * n + Math.min(i, j)] / degree;
    }
    const general = generalEigenvalues(stochastic, n).real.sort().reverse();
    const found = spectrumOf(cloud, 2, 'P');
    found.forEach((value, i) => {
      expect(value).toBeCloseTo(general[i], 11);
    });
    expect(Math.abs(spectralEntropy(found, 1).bits - bitsOf(cloud, 2))).toBeGreaterThan(1e-4);
  });

  it('entropies do not change under rotation and translation', () => {
    const { data, n, d } = cloud;
    const turned = Float64Array.from(data);
    for (const [a, b, angle] of [
      [0, 1, 0.7],
      [2, 4, 2.1],
      [1, 3, -1.3],
    ]) {
      for (let i = 0; i < n; i++) {
        const x = turned[i * d + a];
        const y = turned[i * d + b];
        turned[i * d + a] = Math.cos(angle) * x - Math.sin(angle) * y;
        turned[i * d + b] = Math.sin(angle) * x + Math.cos(angle) * y;
      }
    }
    for (let i = 0; i < turned.length; i++) turned[i] += 17;
    for (const t of [1, 3]) expect(bitsOf({ data: turned, n, d }, 2, t)).toBeCloseTo(bitsOf(cloud, 2, t), 10);
  });

  it('a second copy of every point leaves the spectrum without its zeros unchanged', () => {
    const { data, n, d } = cloud;
    const twice = new Float64Array(2 * n * d);
    twice.set(data);
    twice.set(data, n * d);
    const once = spectrumOf(cloud, 2);
    const doubled = spectrumOf({ data: twice, n: 2 * n, d }, 2);
    for (let i = 0; i < 2 * n; i++) expect(doubled[i]).toBeCloseTo(i < n ? once[i] : 0, 12);
    expect(bitsOf({ data: twice, n: 2 * n, d }, 2)).toBeCloseTo(bitsOf(cloud, 2), 10);
  });

  it('is 0 where every point is the same, log2 n where every point is alone', () => {
    const { n, d } = cloud;
    const same = { data: new Float64Array(n * d).fill(3), n, d };
    expect(bitsOf(same, 1)).toBeCloseTo(0, 10);
    expect(bitsOf(cloud, 1e-3)).toBeCloseTo(Math.log2(n), 12);
    expect(bitsOf(cloud, 1e6)).toBeCloseTo(0, 6);
  });

  it('kernels from inner products and from distances agree, near pairs and far origins included', async () => {
    await withProducts({ threads: 1 }, async (products) => {
      for (const [offset, sigma] of [
        [0, 2],
        [1e4, 2],
        [0, 1e-3],
        [0, 50],
      ]) {
        const data = Float64Array.from(cloud.data, (value) => value + offset);
        data.copyWithin(0, cloud.d, 2 * cloud.d);
        for (let j = 0; j < cloud.d; j++) data[2 * cloud.d + j] = data[3 * cloud.d + j] + 1e-4 * (j + 1);
        const shifted = { ...cloud, data };
        const expected = kernelOf(shifted, sigma);
        const found = await gaussianKernelOfPoints(shifted, sigma, products);
        for (let i = 0; i < cloud.n; i++) {
          for (let j = 0; j <= i; j++) {
            const at = i * cloud.n + j;
            expect(Math.abs(found[at] - expected[at])).toBeLessThan(1e-10);
          }
        }
      }
    });
  });
});

describe('variants', () => {
  it('matrix entries: log2 n^2 for equal points, log2 n for points that are alone', () => {
    const n = 6;
    const kernel = new Float64Array(n * n).fill(1);
    diffusionOperator(kernel, n, 'K');
    expect(matrixEntryEntropyBits(kernel, n)).toBeCloseTo(2 * Math.log2(n), 12);
    const identity = new Float64Array(n * n);
    for (let i = 0; i < n; i++) identity[i * (n + 1)] = 1;
    diffusionOperator(identity, n, 'K');
    expect(matrixEntryEntropyBits(identity, n)).toBeCloseTo(Math.log2(n), 12);
  });

  it('neighbour graph: the point counts as one of the k, ties add neighbours', () => {
    const squared = directSquaredDistances(Float64Array.of(0, 1, 2, 10), 4, 1);
    expect(Array.from(neighbourGraph(squared, 4, 2))).toEqual([1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1]);
    expect(neighbourAdjacencyEntropyBits(squared, 4, 1)).toBeCloseTo(2, 12);
    expect(neighbourAdjacencyEntropyBits(squared, 4, 4)).toBeCloseTo(0, 6);
  });

  it('bins are open on the right, the maximum is in the last', () => {
    expect(Array.from(scalarBins([0, 0.49, 0.5, 0.99, 1], 2, 'x'))).toEqual([1, 1, 2, 2, 2]);
    expect(Array.from(scalarBins([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 10, 'x'))).toEqual([
      1, 2, 3, 3, 5, 6, 6, 7, 9, 10, 10,
    ]);
    expect(() => scalarBins([2, 2], 3, 'the score')).toThrow('the score: all 2 values are 2');
  });

  it('binned entropy saturates at log2 n, and names a constant column', () => {
    const random = createRandom(4);
    const [n, d] = [64, 40];
    const data = Float64Array.from({ length: n * d }, () => random.normal());
    expect(binnedEntropy(data, n, d, 2, 'error').bits).toBeCloseTo(6, 12);
    expect(binnedEntropy(Float64Array.of(0, 0, 1, 1, 1, 1, 0, 0), 4, 2, 2, 'error').bits).toBeCloseTo(1, 12);
    for (let i = 0; i < n; i++) data[i * d + 7] = 5;
    expect(() => binnedEntropy(data, n, d, 2, 'error')).toThrow(/column 7 is constant \(5\), 1 of 40 columns are/);
    expect(binnedEntropy(data, n, d, 2, 'drop')).toMatchObject({ droppedColumns: 1, distinctRows: 64 });
    expect(() => binnedEntropy(new Float64Array(6), 3, 2, 2, 'drop')).toThrow(/all 2 columns are constant/);
  });
});
