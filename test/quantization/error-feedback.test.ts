import { describe, expect, it } from 'vitest';
import { type BlockCoupling, descentCoupling, feedbackCoupling } from '../../src/quantization/block-coupling.js';
import { type BlockQuantizer, feedErrors, lazyColumns, nearestBlocks } from '../../src/quantization/error-feedback.js';
import { factorHessian } from '../../src/quantization/hessian.js';
import { pyramidQuantizer } from '../../src/quantization/pyramid-quantizer.js';
import { hessianLosses } from '../../src/quantization/refits.js';
import { goldenFiles, judge, readCase } from '../conformance/harness.js';
import { correlatedHessian, normals } from './hessian-cases.js';

const total = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0);

/** `E H Eᵀ` by the definition. */
function plainLoss(weights: Float64Array, decoded: Float64Array, rows: number, n: number, H: Float64Array): number {
  let loss = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        loss += (weights[r * n + i] - decoded[r * n + i]) * H[i * n + j] * (weights[r * n + j] - decoded[r * n + j]);
      }
    }
  }
  return loss;
}

function damped(H: Float64Array, n: number, lambda = 0.01): Float64Array {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += H[i * n + i] / n;
  return H.map((value, at) => (at % (n + 1) === 0 ? value + lambda * mean : value));
}

/** Scalar rounding to a fixed grid. */
function grid(step: number): BlockQuantizer<Float64Array> {
  return {
    blockColumns: 1,
    quantize: (target, rows, _column, width, out) => {
      for (let i = 0; i < rows * width; i++) out[i] = step * Math.round(target[i] / step);
    },
  };
}

/** LDLQ of QuIP on one row: `H = (L + I) D (L + I)ᵀ`, last column first, the targets from the errors of the originals. */
function plainLdlq(w: Float64Array, n: number, H: Float64Array, step: number): Float64Array {
  const work = H.slice();
  const unit = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    for (let i = k; i < n; i++) unit[i * n + k] = work[i * n + k] / work[k * n + k];
    for (let i = k + 1; i < n; i++) {
      for (let j = k + 1; j < n; j++) work[i * n + j] -= unit[i * n + k] * work[k * n + j];
    }
  }
  const decoded = new Float64Array(n);
  for (let k = n - 1; k >= 0; k--) {
    let target = w[k];
    for (let j = k + 1; j < n; j++) target += (w[j] - decoded[j]) * unit[j * n + k];
    decoded[k] = step * Math.round(target / step);
  }
  return decoded;
}

describe('error feedback', () => {
  it.each(goldenFiles(['fixtures/golden/pvq-errorfeedback']))('%s', async (path) => {
    const verdict = await judge(readCase(path));
    expect(verdict.detail).toBe('');
    expect(verdict.status).toBe('ok');
  });

  it.each([
    [4, 24, 1],
    [8, 200, 3],
    [24, 280, 2],
    [16, 90, 2],
  ])('gives the loss as the sum of its blocks, D %i of %i columns', (D, n, rows) => {
    const H = correlatedHessian(n, 4 * n, D);
    const weights = normals(rows * n, 11);
    const factor = factorHessian(H.slice(), n, { tensor: 'w' });
    const coupling = feedbackCoupling(factor, D, new Float64Array(n * n));
    const quantizer = pyramidQuantizer<Float64Array>(rows, n, { groupLength: D, pulses: 2 * D });
    const { decoded, losses } = feedErrors(weights, rows, coupling, quantizer);
    const truth = plainLoss(weights, decoded, rows, n, damped(H, n));
    expect(Math.abs(total(losses) / truth - 1)).toBeLessThan(1e-12);
    expect(Math.abs(total(hessianLosses(weights, decoded, rows, factor)) / truth - 1)).toBeLessThan(1e-12);
    const nearest = nearestBlocks(
      weights,
      rows,
      n,
      pyramidQuantizer<Float64Array>(rows, n, { groupLength: D, pulses: 2 * D }),
    );
    expect(truth).toBeLessThan(plainLoss(weights, nearest, rows, n, damped(H, n)));
  });

  it('is LDLQ on reversed columns', () => {
    const n = 150;
    const H = correlatedHessian(n, 2 * n, 5);
    const w = normals(n, 12);
    const factor = factorHessian(H.slice(), n, { tensor: 'w' });
    const coupling = feedbackCoupling(factor, 1, new Float64Array(n * n));
    const { decoded } = feedErrors(w, 1, coupling, grid(0.5));
    const reversed = plainLdlq(w.slice().reverse(), n, damped(H, n).reverse(), 0.5).reverse();
    expect(Array.from(decoded)).toEqual(Array.from(reversed));
  });

  it('lets a quantizer see its group as feedback made it', () => {
    const n = 96;
    const factor = factorHessian(correlatedHessian(n, 4 * n, 6), n, { tensor: 'w' });
    const coupling = feedbackCoupling(factor, 1, new Float64Array(n * n));
    const seen: number[][] = [];
    const quantizer: BlockQuantizer<Float64Array> = {
      ...grid(0.7),
      groupColumns: 32,
      prepareGroup: (target, rows, column, width) => seen.push([column, width, target[0], rows]),
    };
    const w = normals(n, 13);
    feedErrors(w, 1, coupling, quantizer);
    expect(seen.map((entry) => entry.slice(0, 2))).toEqual([
      [0, 32],
      [32, 32],
      [64, 32],
    ]);
    expect(seen[0][2]).toBe(w[0]);
    expect(seen[1][2]).not.toBe(w[32]);
  });

  it('fills the lazy block with whole blocks and groups', () => {
    expect([1, 16, 24, 100, 200].map((D) => lazyColumns(D))).toEqual([128, 128, 120, 100, 200]);
    expect(lazyColumns(1, 96)).toBe(96);
  });

  it('has the couplings of the block factor and of coordinate descent', () => {
    const [n, D] = [22, 4];
    const H = correlatedHessian(n, 3 * n, 7);
    const full = damped(H, n);
    const factor = factorHessian(H.slice(), n, { tensor: 'w' });
    const rebuild = (coupling: BlockCoupling<Float64Array>): Float64Array => {
      const product = new Float64Array(n * n);
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) {
          for (let k = 0; k < n; k++) {
            const first = Math.floor(k / D) * D;
            for (let l = first; l < Math.min(n, first + D); l++) {
              const metric = coupling.metrics[Math.floor(k / D) * D * D + (k - first) * D + l - first];
              product[i * n + j] += coupling.matrix[i * n + k] * metric * coupling.matrix[j * n + l];
            }
          }
        }
      }
      return product;
    };
    rebuild(feedbackCoupling(factor, D, new Float64Array(n * n))).forEach((value, at) => {
      expect(value).toBeCloseTo(full[at], 10);
    });
    const descent = descentCoupling(factor, D, new Float64Array(n * n));
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const first = Math.floor(j / D) * D;
        let sum = 0;
        for (let l = first; l < Math.min(n, first + D); l++) {
          sum += descent.matrix[i * n + l] * full[l * n + j];
        }
        expect(sum).toBeCloseTo(full[i * n + j], 10);
      }
    }
  });

  it('gives the same whatever the threads', () => {
    const [n, rows, D] = [320, 70, 16];
    const factor = factorHessian(correlatedHessian(n, n, 8), n, { tensor: 'w' });
    const coupling = feedbackCoupling(factor, D, new Float32Array(n * n));
    const weights = Float32Array.from(normals(rows * n, 14));
    const [one, two] = [1, 2].map((threads) =>
      feedErrors(weights, rows, coupling, pyramidQuantizer<Float32Array>(rows, n, { groupLength: D, pulses: 20 }), {
        threads,
      }),
    );
    expect(one.decoded).toEqual(two.decoded);
    expect(one.losses).toEqual(two.losses);
  });
});
