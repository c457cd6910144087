import { describe, expect, it } from 'vitest';
import { routerLogits } from '../../src/moe/layer-function.js';
import { createRouterRowFit, dominantRows, groupLogits, meanRows } from '../../src/moe/router-rows.js';
import type { LayerGrouping } from '../../src/moe/types.js';
import { normals } from './random-experts.js';

const grouping: LayerGrouping = { layer: 0, labels: Int32Array.of(0, 1, 0, -1), dominants: Int32Array.of(2, 1) };
const hidden = 5;
const router = normals(4 * hidden, 1);
const rows = 60;
const x = normals(rows * hidden, 2);
const logits = routerLogits(router, 4, x, rows);

describe('router rows', () => {
  it('are those of the dominants, or means weighted by usage', () => {
    expect(dominantRows(router, hidden, grouping)).toEqual(
      Float64Array.of(...router.slice(10, 15), ...router.slice(5, 10)),
    );
    const mean = meanRows(router, hidden, grouping, [0.1, 0.2, 0.3, 0.4]);
    for (let d = 0; d < hidden; d++) {
      expect(mean[d]).toBeCloseTo(0.25 * router[d] + 0.75 * router[10 + d], 14);
      expect(mean[hidden + d]).toBe(router[hidden + d]);
    }
    const unused = meanRows(router, hidden, grouping, [0, 1, 0, 0]);
    expect(unused[0]).toBeCloseTo((router[0] + router[10]) / 2, 14);
  });

  it('have log sum exp of the members as target, dropped experts left out', () => {
    const targets = groupLogits(logits, rows, grouping);
    for (const row of [0, 7, 59]) {
      const z = logits.subarray(4 * row, 4 * row + 4);
      expect(targets[2 * row]).toBeCloseTo(Math.log(Math.exp(z[0]) + Math.exp(z[2])), 12);
      expect(targets[2 * row + 1]).toBe(z[1]);
    }
    expect(groupLogits(Float64Array.of(900, -900, 900, 0), 1, grouping)[0]).toBeCloseTo(900 + Math.log(2), 12);
  });

  it('fit them with residuals that are orthogonal to the inputs', () => {
    const fit = createRouterRowFit(hidden, grouping);
    fit.add(x.subarray(0, 20 * hidden), logits.subarray(0, 20 * 4), 20);
    fit.add(x.subarray(20 * hidden), logits.subarray(20 * 4), 40);
    const start = dominantRows(router, hidden, grouping);
    const { rows: fitted, explained, tokens } = fit.solve(start);
    expect(tokens).toBe(rows);
    const targets = groupLogits(logits, rows, grouping);
    let residual = 0;
    let [sum, squares] = [0, 0];
    const against = new Float64Array(hidden);
    for (let row = 0; row < rows; row++) {
      let left = targets[2 * row];
      sum += left;
      squares += left * left;
      for (let d = 0; d < hidden; d++) left -= fitted[d] * x[row * hidden + d];
      for (let d = 0; d < hidden; d++) against[d] += left * x[row * hidden + d];
      residual += left * left;
    }
    for (const value of against) expect(Math.abs(value)).toBeLessThan(1e-10);
    expect(explained[0]).toBeCloseTo(1 - residual / (squares - (sum * sum) / rows), 9);
    // The second group is one expert, whose row is its own to the last bit.
    expect(fitted.subarray(hidden)).toEqual(start.subarray(hidden));
    expect(explained[1]).toBeCloseTo(1, 9);
    const held = fit.solve(start, 1e9).rows;
    expect(held[0]).toBeCloseTo(start[0], 5);
  });

  it('refuse too few tokens, and inputs that do not span', () => {
    const few = createRouterRowFit(hidden, grouping);
    few.add(x, logits, 4);
    const start = dominantRows(router, hidden, grouping);
    expect(() => few.solve(start)).toThrow('4 calibration tokens do not determine rows of 5 entries');
    expect(few.solve(start, 0.1).tokens).toBe(4);
    const flat = createRouterRowFit(hidden, grouping);
    flat.add(
      x.map((value, i) => (i % hidden === 0 ? 0 : value)),
      logits,
      rows,
    );
    expect(() => flat.solve(start)).toThrow('linearly dependent');
  });
});
