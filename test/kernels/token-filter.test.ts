import { afterAll, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { FILTER_METHODS, type FilterMethod } from '../../src/kernels/token-cuts.js';
import { type FilteredRows, type FilterStep, filterTokens } from '../../src/kernels/token-filter.js';
import { FILTER_FIGURES } from '../../src/kernels/token-filter-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

afterAll(useBestKernels);

const step = (method: FilterMethod, ...values: number[]): FilterStep => ({ method, values });

/** Every filter with ordinary and extreme values, alone and after others. */
const PIPELINES: readonly (readonly FilterStep[])[] = [
  [],
  ...[0.3, 1, 2.5].map((t) => [step('temperature', t)]),
  [step('temperature', 0)],
  [step('dynamic-temperature', 1, 0.7, 1.5)],
  [step('dynamic-temperature', 0.5, 0.5, 1)],
  ...[1, 7, 300, 5000].map((k) => [step('top-k', k)]),
  ...[1e-9, 0.5, 0.9, 0.999, 1].map((p) => [step('top-p', p)]),
  ...[0.02, 0.5, 1].map((p) => [step('min-p', p)]),
  ...[1e-9, 0.2, 0.9, 1].map((m) => [step('typical', m)]),
  ...[1e-5, 3e-3, 0.9].map((e) => [step('epsilon', e)]),
  ...[1e-4, 0.04].map((e) => [step('eta', e)]),
  ...[0.5, 1, 3].map((n) => [step('top-n-sigma', n)]),
  ...[0.05, 0.4, 0.9, 1].flatMap((alpha) => [
    [step('top-h-paper', alpha)],
    [step('top-h-reference', alpha)],
    [step('top-h-transformers', alpha)],
  ]),
  ...[0.01, 0.1, 0.5].map((t) => [step('xtc', t)]),
  ...[2, 6, 12].flatMap((mu) => [[step('mirostat-v1', mu, 100)], [step('mirostat-v2', mu)]]),
  [step('temperature', 1.7), step('top-k', 400), step('top-p', 0.95), step('min-p', 0.01)],
  [step('min-p', 0.01), step('temperature', 1.7), step('typical', 0.5)],
  [step('typical', 0.7), step('top-h-paper', 0.6), step('temperature', 2), step('top-n-sigma', 2)],
  [step('xtc', 0.05), step('eta', 0.01), step('dynamic-temperature', 1.2, 0.9, 1), step('mirostat-v2', 5)],
];

/** Rows as they come: spread, flat, peaked, masked, with ties, with large offsets, all equal, one token. */
function hardRows(vocabulary: number, dtype: 'F32' | 'F64'): { logits: Float32Array | Float64Array; rows: number } {
  const random = createRandom(11);
  const normal = () => random.normal();
  const makers: (() => number)[] = [
    () => 3 * normal(),
    () => 0.01 * normal(),
    () => 8 * normal(),
    () => Math.round(4 * normal()) / 2,
    () => (random.uniform() < 0.4 && vocabulary > 1 ? Number.NEGATIVE_INFINITY : 2 * normal()),
    () => 1e4 + normal(),
    () => 1.25,
    () => -30 * random.uniform() ** 0.2,
    () => 300 * normal(),
  ];
  const rows = makers.length + 1;
  const logits = dtype === 'F32' ? new Float32Array(rows * vocabulary) : new Float64Array(rows * vocabulary);
  makers.forEach((make, r) => {
    for (let i = 0; i < vocabulary; i++) logits[r * vocabulary + i] = make();
  });
  logits.fill(Number.NEGATIVE_INFINITY, makers.length * vocabulary);
  logits[rows * vocabulary - 1] = -5;
  return { logits, rows };
}

const modes = kernelModes();

describe.each(['F32', 'F64'] as const)('filters of %s rows', (dtype) => {
  it.each([1, 33, 401])('are the same in every implementation, vocabulary %i', (vocabulary) => {
    const { logits, rows } = hardRows(vocabulary, dtype);
    const before = logits.slice();
    const random = createRandom(5);
    const uniforms = Float64Array.from({ length: rows }, () => random.uniform());
    for (const steps of PIPELINES) {
      const results = modes.map((mode): FilteredRows => {
        mode.use();
        return filterTokens({ logits, rows, vocabulary, pipelines: [steps], uniforms, keep: true });
      });
      const [reference, ...others] = results;
      others.forEach((other, m) => {
        const where = `${modes[m + 1].name} ${JSON.stringify(steps)}`;
        for (let r = 0; r < rows; r++) {
          expect(other.kept[r], `${where} row ${r}`).toEqual(reference.kept[r]);
          expect(other.kept[r].length, where).toBe(other.figures.keptCount[r]);
          for (const name of FILTER_FIGURES) {
            const [value, wanted] = [other.figures[name][r], reference.figures[name][r]];
            const allowed = 1e-11 + 1e-11 * Math.abs(wanted);
            expect(Math.abs(value - wanted), `${where} row ${r} ${name}: ${value}, not ${wanted}`).toBeLessThan(
              allowed,
            );
          }
        }
        expect(other.tokens, where).toEqual(reference.tokens);
      });
    }
    expect(logits).toEqual(before);
  });
});

describe('filterTokens', () => {
  it('gives the same bits whatever the number of threads, and whatever runs beside a row', () => {
    useBestKernels();
    const vocabulary = 3001;
    const { logits, rows } = hardRows(vocabulary, 'F32');
    const uniforms = new Float64Array(rows).fill(0.7);
    const pipelines = [[step('temperature', 1.3), step('top-p', 0.9)]];
    const one = filterTokens({ logits, rows, vocabulary, pipelines, uniforms, keep: true, threads: 1 });
    expect(filterTokens({ logits, rows, vocabulary, pipelines, uniforms, keep: true, threads: 7 })).toEqual(one);
    for (let r = 0; r < rows; r++) {
      const row = logits.subarray(r * vocabulary, (r + 1) * vocabulary);
      const alone = filterTokens({
        logits: row,
        rows: 1,
        vocabulary,
        pipelines,
        uniforms: uniforms.subarray(r, r + 1),
      });
      expect(alone.tokens[0]).toBe(one.tokens[r]);
      for (const name of FILTER_FIGURES) expect(alone.figures[name][0]).toBe(one.figures[name][r]);
    }
  });

  it('serves each row with a pipeline of its own', () => {
    const logits = Float32Array.of(3, 2, 1, 0, 3, 2, 1, 0);
    const pipelines = [[step('top-k', 1)], [step('top-k', 3)]];
    for (const mode of modes) {
      mode.use();
      const { kept } = filterTokens({ logits, rows: 2, vocabulary: 4, pipelines, keep: true });
      expect(kept.map((ids) => [...ids])).toEqual([[0], [0, 1, 2]]);
    }
    const mixed = [[step('top-k', 1)], [step('top-p', 0.5)]];
    expect(() => filterTokens({ logits, rows: 2, vocabulary: 4, pipelines: mixed })).toThrow(/served apart/);
  });

  it.each(modes.map((mode) => [mode.name, mode] as const))('draws every token at its rate: %s', (_, mode) => {
    mode.use();
    const row = Float32Array.of(0, 2, 1, -1, Number.NEGATIVE_INFINITY);
    const total = Math.exp(0) + Math.exp(2) + Math.exp(1) + Math.exp(-1);
    const n = 2000;
    const logits = new Float32Array(n * 5);
    for (let r = 0; r < n; r++) logits.set(row, r * 5);
    const uniforms = Float64Array.from({ length: n }, (_, r) => (r + 0.5) / n);
    const { tokens } = filterTokens({ logits, rows: n, vocabulary: 5, pipelines: [[]], uniforms });
    for (let id = 0; id < 5; id++) {
      const share = tokens.filter((token) => token === id).length / n;
      expect(Math.abs(share - Math.exp(row[id]) / total)).toBeLessThan(1 / n);
    }
    // In falling order: the first are the most probable.
    expect([...new Set(tokens)]).toEqual([1, 2, 0, 3]);
  });

  it.each(modes.map((mode) => [mode.name, mode] as const))('names a row that is no distribution: %s', (_, mode) => {
    mode.use();
    const good = [1, 2, 3];
    const filter = (bad: number[]) => () =>
      filterTokens({
        logits: Float64Array.of(...good, ...bad),
        rows: 2,
        vocabulary: 3,
        pipelines: [[]],
        name: 'dump.npy',
        firstRow: 40,
      });
    const [nan, inf] = [Number.NaN, Number.POSITIVE_INFINITY];
    expect(filter([1, nan, 2])).toThrow('dump.npy: row 41, column 1 is NaN');
    expect(filter([1, 2, inf])).toThrow('dump.npy: row 41, column 2 is Infinity');
    expect(filter([-inf, -inf, -inf])).toThrow('dump.npy: row 41 has no finite logit');
  });

  it('knows every method', () => {
    configureKernels({ native: true });
    const used = new Set(PIPELINES.flat().map(({ method }) => method));
    expect([...used].sort()).toEqual([...FILTER_METHODS].sort());
  });
});
