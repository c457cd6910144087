import { describe, expect, it } from 'vitest';
import { asymptoticTest, countTables, drawTable, eachTable } from '../../src/dependence/contingency.js';
import { testDiscrete } from '../../src/dependence/discrete-analysis.js';
import { drawBinomial, drawHypergeometric, drawMultinomial } from '../../src/dependence/draws.js';
import { entropyEstimator } from '../../src/dependence/entropy-estimators.js';
import {
  bindMeasure,
  deltaErrorOf,
  leaveOneOutCells,
  MEASURE_TERMS,
  measureOf,
} from '../../src/dependence/information.js';
import { accelerationOf, bootstrapIntervals } from '../../src/dependence/intervals.js';
import { jointTable, tableOfCells } from '../../src/dependence/joint-table.js';
import { judgeAgainst } from '../../src/dependence/permutation.js';
import { quantileType7 } from '../../src/dependence/quantiles.js';
import { checkBlock, drawBlocks, drawOrder, segmentsOf, singleStrata } from '../../src/dependence/row-orders.js';
import { serialNumbers, serialSymbols } from '../../src/dependence/serial-dependence.js';
import { joinSymbols, symbolsOf } from '../../src/dependence/symbols.js';
import { historyOf, pastSymbols, presentSymbols } from '../../src/dependence/transfer.js';
import { benjaminiHochberg, holm } from '../../src/linalg/multiple-tests.js';
import { createRandom } from '../../src/random.js';

const plugin = entropyEstimator('plugin');
const randomCodes = (n: number, size: number, seed: number): Int32Array => {
  const random = createRandom(seed);
  return Int32Array.from({ length: n }, () => random.integer(size));
};

describe('random counts', () => {
  const moments = (draw: () => number, count = 20_000): [number, number] => {
    const values = Array.from({ length: count }, draw);
    const mean = values.reduce((a, b) => a + b, 0) / count;
    return [mean, values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1)];
  };
  const within = (found: number, expected: number, se: number): void => {
    expect(Math.abs(found - expected)).toBeLessThan(4.5 * se);
  };

  it.each([
    [7, 0.3],
    [40, 0.9],
    [1000, 0.2],
    [1_000_000_000, 0.37],
    [50, 0.999],
  ])('binomial(%d, %d) has its mean and variance', (n, p) => {
    const random = createRandom(n);
    const [mean, variance] = moments(() => drawBinomial(random, n, p));
    const v = n * p * (1 - p);
    within(mean, n * p, Math.sqrt(v / 20_000));
    within(variance, v, v * Math.sqrt((2 + 1 / v) / 20_000));
  });

  it('binomial frequencies fit by χ², on both sides of the method', () => {
    for (const n of [20, 60]) {
      const random = createRandom(3);
      const counts = new Float64Array(n + 1);
      for (let i = 0; i < 40_000; i++) counts[drawBinomial(random, n, 0.4)]++;
      let chi = 0;
      let probability = 0.6 ** n;
      for (let k = 0; k <= n; k++) {
        const expected = 40_000 * probability;
        if (expected > 5) chi += (counts[k] - expected) ** 2 / expected;
        probability *= ((n - k) / (k + 1)) * (0.4 / 0.6);
      }
      expect(chi).toBeLessThan(2.5 * n);
    }
  });

  it('hypergeometric numbers have their mean and variance', () => {
    const random = createRandom(1);
    const [total, marked, draws] = [200, 60, 45];
    const [mean, variance] = moments(() => drawHypergeometric(random, total, marked, draws));
    const p = marked / total;
    const v = draws * p * (1 - p) * ((total - draws) / (total - 1));
    within(mean, draws * p, Math.sqrt(v / 20_000));
    within(variance, v, v * Math.sqrt(2 / 20_000));
    expect(drawHypergeometric(random, 10, 10, 4)).toBe(4);
  });

  it('multinomial counts sum to the total', () => {
    const target = new Float64Array(4);
    drawMultinomial(createRandom(2), 1000, Float64Array.of(1, 0, 3, 6), target);
    expect(target.reduce((a, b) => a + b, 0)).toBe(1000);
    expect(target[1]).toBe(0);
  });
});

describe('contingency tables', () => {
  const margins = { rows: Float64Array.of(3, 2), columns: Float64Array.of(2, 2, 1) };

  it('are all visited, with probabilities that sum to one and are those of shuffled rows', () => {
    let mass = 0;
    const seen = new Map<string, number>();
    eachTable(margins, (table, probability) => {
      mass += probability;
      seen.set(table.join(), probability);
      return true;
    });
    expect(mass).toBeCloseTo(1, 12);
    expect(countTables(margins, 100)).toBe(seen.size);
    expect(countTables(margins, seen.size - 1)).toBeUndefined();
    // 5! / (multiplicities) arrangements of the columns' symbols against fixed rows: shuffle and count.
    const random = createRandom(4);
    const counts = new Map<string, number>();
    const y = [0, 0, 1, 1, 2];
    for (let i = 0; i < 30_000; i++) {
      const order = random.permutation(5);
      const table = new Float64Array(6);
      for (let row = 0; row < 5; row++) table[(row < 3 ? 0 : 1) * 3 + y[order[row]]]++;
      counts.set(table.join(), (counts.get(table.join()) ?? 0) + 1);
    }
    for (const [key, p] of seen) {
      expect(Math.abs((counts.get(key) ?? 0) / 30_000 - p)).toBeLessThan(4.5 * Math.sqrt(p / 30_000));
    }
  });

  it('are drawn with the margins and in the right proportions', () => {
    const random = createRandom(5);
    const table = new Float64Array(6);
    const counts = new Map<string, number>();
    for (let i = 0; i < 20_000; i++) {
      drawTable(random, margins, table);
      counts.set(table.join(), (counts.get(table.join()) ?? 0) + 1);
    }
    eachTable(margins, (cells, p) => {
      expect(Math.abs((counts.get(cells.join()) ?? 0) / 20_000 - p)).toBeLessThan(4.5 * Math.sqrt(p / 20_000));
      return true;
    });
  });

  it('flags expected cells below 5, and has no freedom for one symbol', () => {
    const test = asymptoticTest([margins], 0.1);
    expect(test).toMatchObject({ degreesOfFreedom: 2, leastExpected: 0.4, smallCells: true });
    const constant = asymptoticTest([{ rows: Float64Array.of(5), columns: Float64Array.of(3, 2) }], 0);
    expect(constant).toMatchObject({ degreesOfFreedom: 0, pValue: 1, smallCells: false });
  });
});

describe('permutation tests', () => {
  const settings = {
    estimator: 'plugin',
    supports: [0, 0, 0],
    permutations: 400,
    bootstrap: 0,
    alpha: 0.05,
    block: null,
    segments: segmentsOf(0),
  };
  const dataOf = (columns: readonly Int32Array[]) => {
    const symbols = columns.map((codes) => symbolsOf(codes));
    return { table: jointTable(symbols), rows: joinSymbols(symbols).codes };
  };
  const run = (kind: 'pair' | 'conditional' | 'transfer', columns: readonly Int32Array[]) => {
    const data = dataOf(columns);
    const terms = kind === 'pair' ? MEASURE_TERMS.mutual_information : MEASURE_TERMS.conditional_mutual_information;
    const observed = measureOf(bindMeasure(data.table, terms), data.table.counts, plugin);
    const exchange =
      kind === 'conditional' ? { kind: 'strata' as const, ...symbolsOf(columns[2]) } : { kind: 'rows' as const };
    return testDiscrete(kind, data, observed, exchange, settings, createRandom(1), () => undefined);
  };

  it('enumerates where tables are few: the exact p of a 2 x 2 table is that of Fisher', () => {
    const x = Int32Array.of(0, 0, 0, 0, 1, 1, 1, 1);
    const y = Int32Array.of(0, 0, 0, 1, 0, 1, 1, 1);
    const test = run('pair', [x, y]);
    // Tables at least as dependent: 3+1 either way (16 + 16 of 70) and 4+0 either way (2 of 70).
    expect(test).toMatchObject({ method: 'enumeration', exact: true, replicates: 5 });
    expect(test.pValue).toBeCloseTo(34 / 70, 12);
  });

  it('one symbol: I = 0, p = 1', () => {
    const test = run('pair', [new Int32Array(9), randomCodes(9, 3, 1)]);
    expect(test).toMatchObject({ pValue: 1, exact: true, nullMean: 0, z: null });
    expect(test.asymptotic).toMatchObject({ degreesOfFreedom: 0, pValue: 1 });
  });

  it('shuffled rows, random tables and the asymptotic law agree under independence', () => {
    const [x, y] = [randomCodes(600, 4, 7), randomCodes(600, 3, 8)];
    const tables = run('pair', [x, y]);
    expect(tables.method).toBe('tables');
    // E[2 N I0] = df
    expect(2 * 600 * tables.nullMean).toBeGreaterThan(5.2);
    expect(2 * 600 * tables.nullMean).toBeLessThan(6.8);
    const given = run('conditional', [x, y, new Int32Array(600)]);
    expect(given.method).toBe('strata');
    expect(Math.abs(given.nullMean - tables.nullMean)).toBeLessThan(5 * (tables.nullSd / Math.sqrt(400)));
    expect(Math.abs(tables.pValue - (tables.asymptotic?.pValue ?? 0))).toBeLessThan(0.1);
  });

  it('a conditional test sees dependence within strata, and counts strata of one row', () => {
    const n = 300;
    const z = Int32Array.from({ length: n }, (_, i) => (i === 0 ? 9 : i % 3));
    const x = randomCodes(n, 2, 1);
    const noise = randomCodes(n, 4, 2);
    const y = x.map((value, i) => (noise[i] === 0 ? 1 - value : value));
    const test = run('conditional', [x, y, z]);
    expect(test.pValue).toBe(1 / 401);
    expect(test.singleStrata).toBe(1);
    expect(singleStrata(symbolsOf(z).codes, 4)).toBe(1);
  });

  it('a transfer is found in its direction alone', () => {
    const x = randomCodes(400, 2, 3);
    const noise = randomCodes(400, 5, 4);
    const y = x.map((_, t) => (t > 0 && noise[t] > 0 ? x[t - 1] : noise[t] % 2));
    const history = historyOf(segmentsOf(400), 1, 'series');
    const columns = (source: Int32Array, target: Int32Array): Int32Array[] => [
      presentSymbols(symbolsOf(target), history).codes,
      pastSymbols(symbolsOf(source), history, 1).codes,
      pastSymbols(symbolsOf(target), history, 1).codes,
    ];
    expect(run('transfer', columns(x, y)).pValue).toBe(1 / 401);
    expect(run('transfer', columns(y, x)).pValue).toBeGreaterThan(0.01);
  });

  it('p is never 0 and ties count', () => {
    expect(judgeAgainst(1, [0, 0, 0]).pValue).toBe(0.25);
    expect(judgeAgainst(1, [1 - 1e-13, 0, 0]).pValue).toBe(0.5);
  });
});

describe('orders of rows', () => {
  const segments = segmentsOf(9, { codes: Int32Array.of(0, 1, 0, 1, 0, 1, 0, 0, 0), size: 2 });
  const sorted = (order: Int32Array): number[] => Array.from(order).sort((a, b) => a - b);
  const all = Array.from({ length: 9 }, (_, i) => i);

  it.each(['shift', 'block', 'strata', 'rows'] as const)('%s is a permutation that keeps to its segments', (kind) => {
    const exchange =
      kind === 'block'
        ? ({ kind, segments, length: 2 } as const)
        : kind === 'shift'
          ? ({ kind, segments } as const)
          : kind === 'strata'
            ? ({ kind, codes: Int32Array.of(0, 1, 0, 1, 0, 1, 0, 0, 0), size: 2 } as const)
            : ({ kind } as const);
    for (let b = 0; b < 20; b++) {
      const order = drawOrder(exchange, 9, createRandom(b));
      expect(sorted(order)).toEqual(all);
      if (kind !== 'rows') for (const row of [1, 3, 5]) expect([1, 3, 5]).toContain(order[row]);
    }
  });

  it('a shift keeps neighbours together and never stays', () => {
    const order = drawOrder({ kind: 'shift', segments: segmentsOf(7) }, 7, createRandom(1));
    expect(order[0]).not.toBe(0);
    for (let i = 1; i < 7; i++) expect(order[i]).toBe((order[i - 1] + 1) % 7);
  });

  it('block resamples hold runs', () => {
    const drawn = drawBlocks(segmentsOf(20), 5, 20, createRandom(1));
    for (let i = 0; i < 20; i++) if (i % 5 > 0) expect(drawn[i]).toBe((drawn[i - 1] + 1) % 20);
    expect(() => checkBlock(segments, 4)).toThrow(/longest segment has 6 rows; blocks of at most 3/);
  });
});

describe('measures of tables', () => {
  const columns = [randomCodes(80, 3, 1), randomCodes(80, 4, 2), randomCodes(80, 2, 3)].map((codes) =>
    symbolsOf(codes),
  );

  it('leave observations out as brute force does', () => {
    const table = jointTable(columns);
    for (const name of ['plugin', 'miller-madow', 'chao-shen']) {
      const estimator = entropyEstimator(name);
      const measure = bindMeasure(table, MEASURE_TERMS.interaction_information);
      const left = leaveOneOutCells(measure, table.counts, estimator);
      for (let cell = 0; cell < table.counts.length; cell++) {
        const counts = table.counts.slice();
        counts[cell]--;
        expect(left[cell]).toBeCloseTo(measureOf(measure, counts, estimator), 11);
      }
    }
  });

  it('have the delta-method error of the mean of local information', () => {
    const table = jointTable(columns.slice(0, 2));
    const local: number[] = [];
    const marginal = (v: number, code: number): number =>
      table.counts.reduce((sum, count, cell) => sum + (table.cells[v][cell] === code ? count : 0), 0);
    table.counts.forEach((count, cell) => {
      const expected = (marginal(0, table.cells[0][cell]) * marginal(1, table.cells[1][cell])) / 80;
      for (let i = 0; i < count; i++) local.push(Math.log(count / expected));
    });
    const mean = local.reduce((a, b) => a + b, 0) / 80;
    const variance = local.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 80;
    const measure = bindMeasure(table, MEASURE_TERMS.mutual_information);
    expect(measureOf(measure, table.counts, plugin)).toBeCloseTo(mean, 12);
    expect(deltaErrorOf(measure, table.counts)).toBeCloseTo(Math.sqrt(variance / 80), 12);
  });

  it('do not depend on the order of rows, nor on whether they came as counts', () => {
    const table = jointTable(columns);
    const reversed = jointTable(columns.map(({ codes, size }) => ({ codes: codes.slice().reverse(), size })));
    expect(reversed).toEqual(table);
    const cells = table.cells.map((codes, v) => ({ codes, size: table.sizes[v] }));
    expect(tableOfCells(cells, table.counts)).toEqual(table);
  });

  it('joins more pairs than a table holds by sorting', () => {
    const n = 3000;
    const wide = [1, 2, 3].map((seed) => symbolsOf(randomCodes(n, 2000, seed)));
    const joint = joinSymbols(wide);
    const texts = new Set(Array.from({ length: n }, (_, i) => wide.map(({ codes }) => codes[i]).join()));
    expect(joint.size).toBe(texts.size);
  });
});

describe('intervals', () => {
  it('quantiles are linear between order statistics', () => {
    expect(quantileType7([1, 2, 4], 0.75)).toBe(3);
    expect(quantileType7([1, 2, 4], 1)).toBe(4);
  });

  it('symmetric replicates without bias give four equal intervals', () => {
    const replicates = Float64Array.from({ length: 4001 }, (_, i) => (i - 2000) / 1000);
    const { percentile, basic, bca, z0, acceleration } = bootstrapIntervals(0, replicates, {
      values: [1, 1],
      weights: [3, 2],
    });
    expect([z0, acceleration]).toEqual([0, 0]);
    for (const found of [basic, bca]) {
      expect(found.low).toBeCloseTo(percentile.low, 10);
      expect(found.high).toBeCloseTo(percentile.high, 10);
    }
  });

  it('z0 is clipped where all replicates lie below', () => {
    const { z0, bca } = bootstrapIntervals(9, Float64Array.of(1, 2, 3, 4), { values: [1, 2, 3], weights: [1, 1, 1] });
    expect(z0).toBeGreaterThan(0);
    expect(bca.low).toBeGreaterThan(1);
    expect(accelerationOf({ values: [1, 2, 9, Number.NaN], weights: [1, 1, 1, 0] })).not.toBe(0);
  });
});

describe('many tests', () => {
  it('Holm and Benjamini-Hochberg', () => {
    const p = [0.01, 0.04, 0.03, Number.NaN, 0.005];
    expect(Array.from(holm(p))).toEqual([0.03, 0.06, 0.06, Number.NaN, 0.02]);
    expect(Array.from(benjaminiHochberg(p))).toEqual([0.02, 0.04, 0.04, Number.NaN, 0.02]);
  });
});

describe('serial dependence', () => {
  it('is found in a slow series and not in shuffled rows', () => {
    const random = createRandom(6);
    const walk = new Float64Array(500);
    for (let i = 1; i < 500; i++) walk[i] = 0.8 * walk[i - 1] + random.normal();
    const segments = segmentsOf(500);
    expect(serialNumbers(walk, segments)?.pValue).toBeLessThan(1e-10);
    const mixed = random.permutation(500);
    expect(
      serialNumbers(
        walk.map((_, i) => walk[mixed[i]]),
        segments,
      )?.pValue,
    ).toBeGreaterThan(0.01);
    const signs = Int32Array.from(walk, (value) => (value > 0 ? 1 : 0));
    expect(serialSymbols(signs, 2, segments)?.pValue).toBeLessThan(1e-6);
    expect(
      serialSymbols(
        signs.map((_, i) => signs[mixed[i]]),
        2,
        segments,
      )?.pValue,
    ).toBeGreaterThan(0.01);
    expect(serialNumbers(new Float64Array(20), segmentsOf(20))).toBeUndefined();
  });

  it('z of repeated symbols is standard normal for exchangeable rows', () => {
    const zs = Array.from({ length: 400 }, (_, b) => serialSymbols(randomCodes(200, 5, b), 5, segmentsOf(200))?.z ?? 0);
    const mean = zs.reduce((a, b) => a + b, 0) / 400;
    const variance = zs.reduce((sum, z) => sum + (z - mean) ** 2, 0) / 399;
    expect(Math.abs(mean)).toBeLessThan(0.2);
    expect(Math.abs(variance - 1)).toBeLessThan(0.3);
  });
});

describe('history', () => {
  it('never goes over the end of a segment', () => {
    const groups = { codes: Int32Array.of(0, 0, 0, 0, 1, 1, 1, 1, 1), size: 2 };
    const history = historyOf(segmentsOf(9, groups), 2, 'series');
    expect(Array.from(history.present)).toEqual([2, 3, 6, 7, 8]);
    expect(Array.from(history.before)).toEqual([1, 0, 2, 1, 5, 4, 6, 5, 7, 6]);
    expect(Array.from(history.segments.starts)).toEqual([0, 2, 5]);
    expect(() => historyOf(segmentsOf(3), 2, 'x, y')).toThrow(
      /longest series has 3 rows; a history of 2 needs at least 4/,
    );
  });
});
