import { describe, expect, it } from 'vitest';
import { runExpert, runInner } from '../../src/moe/expert-function.js';
import { dispatch, type ExpertLayerFunction, gatherRows, runLayer } from '../../src/moe/layer-function.js';
import { createDownRefit, groupShares, refitGroup } from '../../src/moe/refit.js';
import type { ExpertShape, RouterRule } from '../../src/moe/types.js';
import { normals, randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 6, width: 9, gated: true, activation: 'silu' };
const rule: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true };
const experts = [0, 1, 2, 3].map((key) => randomExpert(shape, key));
const layer: ExpertLayerFunction = {
  shape,
  rule,
  router: normals(4 * 6, 1),
  routerRows: 4,
  experts: 4,
  expert: (place) => experts[place],
};
const rows = 80;
const x = normals(rows * 6, 2);
const { routing } = runLayer(layer, x, rows);
const merged = randomExpert(shape, 9);
const group = { shape, members: [0, 2], original: layer.expert, merged };
const visit = (use: (block: { x: Float64Array; rows: number; routing: typeof routing }) => void) =>
  use({ x, rows, routing });

/** What experts 0 and 2 gave to the rows that chose them. */
function sharesOfGroup() {
  const chosen = dispatch(routing);
  const output = (e: number) => {
    const own = chosen.rows.subarray(chosen.starts[e], chosen.starts[e + 1]);
    return runExpert(experts[e], shape, gatherRows(x, 6, own), own.length);
  };
  return groupShares([0, 2], chosen, output, rows, 6);
}

/** sum_x ||s y - s D h||^2 + lambda ||D - D_avg||^2 of the group's rows. */
function objective(down: ArrayLike<number>, lambda: number): number {
  const shares = sharesOfGroup();
  let sum = 0;
  shares.rows.forEach((row, place) => {
    const inner = new Float64Array(9);
    runInner(merged, shape, x.subarray(row * 6, row * 6 + 6), 1, inner);
    for (let d = 0; d < 6; d++) {
      let output = 0;
      for (let i = 0; i < 9; i++) output += down[d * 9 + i] * inner[i];
      sum += (shares.shares[place * 6 + d] - shares.weights[place] * output) ** 2;
    }
  });
  for (let i = 0; i < down.length; i++) sum += lambda * (down[i] - merged.down[i]) ** 2;
  return sum;
}

describe('groupShares', () => {
  it('is the members of a group alone under the original routing', () => {
    const shares = sharesOfGroup();
    const zero = { ...merged, down: merged.down.map(() => 0) };
    const alone = runLayer({ ...layer, expert: (e) => (e === 0 || e === 2 ? experts[e] : zero) }, x, rows).output;
    const seen = new Set(shares.rows);
    shares.rows.forEach((row, place) => {
      for (let d = 0; d < 6; d++) expect(shares.shares[place * 6 + d]).toBeCloseTo(alone[row * 6 + d], 12);
    });
    alone.forEach((value, i) => {
      if (!seen.has(Math.floor(i / 6))) expect(value).toBeCloseTo(0, 15);
    });
    const plan = dispatch(routing, Int32Array.of(0, -1, 0, -1), 1);
    expect(shares.weights).toEqual(plan.weights);
  });
});

describe('refitGroup', () => {
  it.each([0, 0.1])('is the minimum of its objective with lambda %d', (lambda) => {
    const { down, path } = refitGroup(group, visit, { lambda });
    expect(path).toBe('cholesky');
    const least = objective(down, lambda);
    expect(least).toBeLessThan(objective(merged.down, lambda));
    for (const step of [1e-4, -1e-4]) {
      for (let i = 0; i < down.length; i++) {
        const moved = down.slice();
        moved[i] += step;
        expect(objective(moved, lambda)).toBeGreaterThan(least);
      }
    }
  });

  it('keeps an expert that was not merged with any other', () => {
    const { down } = refitGroup({ ...group, members: [1], merged: experts[1] }, visit, { lambda: 0 });
    down.forEach((value, i) => {
      expect(value).toBeCloseTo(experts[1].down[i], 9);
    });
  });

  it('finds the same by conjugate gradients, which never form I x I', () => {
    const exact = refitGroup(group, visit, { lambda: 0.01 });
    const found = refitGroup(group, visit, { lambda: 0.01, maxBytes: 0, tolerance: 1e-6 });
    expect(found.path).toBe('conjugate-gradients');
    expect(found.residual).toBeLessThan(1e-6);
    expect(found.iterations).toBeGreaterThan(2);
    found.down.forEach((value, i) => {
      expect(value).toBeCloseTo(exact.down[i], 3);
    });
  });

  it('has the same bits however the rows come', () => {
    const count = 1300;
    const inner = normals(count * 9, 20);
    const shares = normals(count * 6, 21);
    const weights = normals(count, 22);
    const solve = (step: number) => {
      const refit = createDownRefit(shape);
      for (let from = 0; from < count; from += step) {
        const to = Math.min(count, from + step);
        refit.add(inner.subarray(from * 9), shares.subarray(from * 6), weights.subarray(from, to), to - from);
      }
      return refit.solve(merged.down).down;
    };
    expect(solve(7)).toEqual(solve(count));
  });

  it('keeps the average where no token reached the group', () => {
    const refit = createDownRefit(shape, { lambda: 0.5 });
    const { down, tokens } = refit.solve(merged.down);
    expect(tokens).toBe(0);
    down.forEach((value, i) => {
      expect(value).toBeCloseTo(merged.down[i], 14);
    });
  });

  it('refuses fewer tokens than neurons without a lambda, and what is singular', () => {
    const refit = createDownRefit(shape);
    refit.add(normals(8 * 9, 5), normals(8 * 6, 6), new Float64Array(8).fill(1), 8);
    expect(() => refit.solve(merged.down)).toThrow('8 calibration tokens, its experts are 9 wide');
    const dead = createDownRefit(shape);
    const inner = normals(20 * 9, 5).map((value, i) => (i % 9 === 4 ? 0 : value));
    dead.add(inner, normals(20 * 6, 6), new Float64Array(20).fill(1), 20);
    expect(() => dead.solve(merged.down)).toThrow('larger --refit-lambda');
    expect(() => createDownRefit(shape, { lambda: -1 })).toThrow('lambda -1');
  });
});
