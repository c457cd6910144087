import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rotateHessian, rotateRows } from '../../src/kernels/hadamard.js';
import { configureKernels } from '../../src/kernels/native.js';
import { hadamardCore, planRotation, type Rotation, signsFromBits } from '../../src/linalg/hadamard.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

type Rows = Float32Array | Float64Array;

/** Powers of two, cores with every short segment, blocks, one coordinate and an odd width. */
const WIDTHS = [1, 2, 4, 6, 8, 12, 14, 15, 16, 20, 24, 36, 48, 52, 64, 80, 96, 128, 192, 256, 336, 344, 512, 1536];

function normals<T extends Rows>(rows: T, seed: number): T {
  const random = createRandom(seed);
  for (let i = 0; i < rows.length; i++) rows[i] = random.normal();
  return rows;
}

const popcount = (x: number): number => (x === 0 ? 0 : (x & 1) + popcount(x >> 1));

/** Q [n, n] by its definition. */
function denseRotation(rotation: Rotation): Float64Array {
  const { length: n, core, segment, kind, permutation } = rotation;
  const q = new Float64Array(n * n);
  if (kind === 'none') return q.map((_, at) => (at % (n + 1) === 0 ? 1 : 0));
  const signs = signsFromBits(rotation.signs, n);
  const coreMatrix = kind === 'blocks' ? Int8Array.of(1) : hadamardCore({ kind, core });
  const block = core * segment;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      if (Math.floor(i / block) !== Math.floor(j / block)) continue;
      const [a, b] = [i % block, j % block];
      const entry = coreMatrix[Math.floor(a / segment) * core + Math.floor(b / segment)];
      const sign = popcount((a % segment) & (b % segment)) % 2 === 0 ? 1 : -1;
      const source = permutation === undefined ? j : permutation[j];
      q[i * n + source] = (entry * sign * signs[source]) / Math.sqrt(block);
    }
  }
  return q;
}

function largestDifference(a: Rows, b: Rows): number {
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}

const sameBits = (a: Rows, b: Rows): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

describe.each(kernelModes())('rotations of rows, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it('are products with the dense matrix, and the inverse with its transpose', () => {
    for (const n of WIDTHS.filter((width) => width <= 344)) {
      const rotation = planRotation(n, BigInt(n));
      const q = denseRotation(rotation);
      const x = normals(new Float64Array(3 * n), n);
      for (const direction of ['forward', 'inverse'] as const) {
        const found = x.slice();
        rotateRows(found, 3, rotation, direction);
        const expected = new Float64Array(3 * n);
        for (let r = 0; r < 3; r++) {
          for (let i = 0; i < n; i++) {
            let sum = 0;
            for (let j = 0; j < n; j++) sum += q[direction === 'forward' ? i * n + j : j * n + i] * x[r * n + j];
            expected[r * n + i] = sum;
          }
        }
        expect([n, direction, largestDifference(found, expected) < 1e-13 * Math.sqrt(n) + 1e-15]).toEqual([
          n,
          direction,
          true,
        ]);
      }
    }
  });

  it('keep norms and are undone, in both widths', () => {
    for (const n of WIDTHS) {
      const rotation = planRotation(n, 11n);
      for (const [x, tolerance] of [
        [normals(new Float64Array(5 * n), 1), 2e-15],
        [normals(new Float32Array(5 * n), 1), 1e-6],
      ] as const) {
        const y = x.slice();
        rotateRows(y, 5, rotation, 'forward');
        for (let r = 0; r < 5; r++) {
          const before = Math.hypot(...x.subarray(r * n, (r + 1) * n));
          const after = Math.hypot(...y.subarray(r * n, (r + 1) * n));
          expect(Math.abs(after / before - 1)).toBeLessThan(4 * tolerance);
        }
        rotateRows(y, 5, rotation, 'inverse');
        expect(largestDifference(x, y)).toBeLessThan(20 * tolerance);
      }
    }
  });

  it('give the same bits as the reference on any number of threads', () => {
    for (const n of [...WIDTHS, 2880, 5632, 13696]) {
      const rows = n > 1000 ? 3 : 37;
      const rotation = planRotation(n, 5n);
      for (const x of [normals(new Float32Array(rows * n), 2), normals(new Float64Array(rows * n), 3)]) {
        for (const direction of ['forward', 'inverse'] as const) {
          const reference = x.slice();
          configureKernels({ native: false });
          rotateRows(reference, rows, rotation, direction);
          mode.use();
          for (const threads of [1, 3]) {
            const found = x.slice();
            rotateRows(found, rows, rotation, direction, threads);
            if (!sameBits(found, reference)) expect([n, x.constructor.name, direction, threads]).toBe('the same bits');
          }
        }
      }
    }
  });

  it('spread a spike over the row', () => {
    for (const n of [64, 344, 768]) {
      const x = new Float32Array(n);
      x[17] = 1;
      rotateRows(x, 1, planRotation(n, 2n), 'forward');
      for (const value of x) expect(Math.abs(value)).toBeCloseTo(1 / Math.sqrt(n), 6);
    }
  });

  it('turn a Hessian into Q H Qᵀ, from its lower triangle alone', () => {
    for (const n of [1, 6, 15, 33 * 4, 96]) {
      const rotation = planRotation(n, 4n);
      const q = denseRotation(rotation);
      const h = normals(new Float64Array(n * n), n);
      const symmetric = h.map((value, at) => {
        const [i, j] = [Math.floor(at / n), at % n];
        return j <= i ? value : h[j * n + i];
      });
      const half = new Float64Array(n * n);
      const expected = new Float64Array(n * n);
      const multiplyInto = (a: Float64Array, b: (l: number, j: number) => number, c: Float64Array): void => {
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < n; j++) {
            for (let l = 0; l < n; l++) c[i * n + j] += a[i * n + l] * b(l, j);
          }
        }
      };
      multiplyInto(q, (l, j) => symmetric[l * n + j], half);
      multiplyInto(half, (l, j) => q[j * n + l], expected);
      rotateHessian(h, rotation, 2);
      expect(largestDifference(h, expected)).toBeLessThan(1e-13 * n);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < i; j++) if (h[i * n + j] !== h[j * n + i]) expect([i, j]).toBe('');
    }
  });

  it('take no row, and refuse arrays that hold no rows', () => {
    const rotation = planRotation(8, 1n);
    rotateRows(new Float32Array(0), 0, rotation, 'forward');
    expect(() => rotateRows(new Float32Array(15), 2, rotation, 'forward')).toThrow('15 entries are no 2 rows of 8');
    expect(() => rotateHessian(new Float64Array(60), rotation)).toThrow(RangeError);
    const odd = Float32Array.of(1, 2, 3);
    rotateRows(odd, 1, planRotation(3, 1n), 'forward');
    expect(odd).toEqual(Float32Array.of(1, 2, 3));
  });
});

describe('rotations of random widths', () => {
  it('preserve inner products', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (n, seed) => {
        const x = normals(new Float64Array(2 * n), n);
        const y = x.slice();
        rotateRows(y, 2, planRotation(n, seed), 'forward');
        let [before, after] = [0, 0];
        for (let i = 0; i < n; i++) {
          before += x[i] * x[n + i];
          after += y[i] * y[n + i];
        }
        expect(Math.abs(after - before)).toBeLessThan(1e-13 * n);
      }),
      { numRuns: 60, seed: 1 },
    );
  });
});
