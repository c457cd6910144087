import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { blank, findAdapter, goldenFiles, judge, mismatches, plain, readCase } from './harness.js';

const GOLDEN = fileURLToPath(new URL('../../fixtures/golden', import.meta.url));

describe('bundled golden cases', () => {
  const cases = goldenFiles([GOLDEN]).map(readCase);

  it('has cases of every system of the entropy field', () => {
    const systems = new Set(cases.map((golden) => golden.system));
    for (const system of ['token-measures', 'perplexity-windows', 'logit-compare', 'attention-entropy']) {
      expect(systems).toContain(system);
    }
  });

  it.each(cases.map((golden) => [`${golden.system}/${golden.case}`, golden] as const))('%s', async (_, golden) => {
    const verdict = await judge(golden);
    expect(`${verdict.status} ${verdict.detail}`).toBe('ok ');
  });

  it.each(cases.slice(0, 3))('a changed figure of $system/$case fails', async (golden) => {
    const [key] = Object.keys(golden.expected as object);
    const expected = { ...(golden.expected as object), [key]: 'nan' };
    expect((await judge({ ...golden, expected })).status).toBe('FAIL');
  });

  it('knows no adapter for an unknown system or a path', async () => {
    expect(await findAdapter('no-such-system')).toBeUndefined();
    expect(await findAdapter('../conformance/token-measures')).toBeUndefined();
    expect(await findAdapter('harness')).toBeUndefined();
  });
});

describe('passing rule', () => {
  const tolerance = { rtol: 1e-3, atol: 1e-6 };
  const passes = (actual: unknown, expected: Parameters<typeof mismatches>[1], float32 = false): boolean =>
    mismatches(plain(actual), expected, tolerance, float32).length === 0;

  it('allows atol + rtol |expected| and no more', () => {
    expect(passes(1.001, 1)).toBe(true);
    expect(passes(1.00101, 1)).toBe(false);
    expect(passes(1e-6, 0)).toBe(true);
    expect(passes(1.1e-6, 0)).toBe(false);
  });

  it('spells infinite values, and takes no other value for them', () => {
    expect(passes(Number.POSITIVE_INFINITY, 'inf')).toBe(true);
    expect(passes(Number.NaN, 'nan')).toBe(true);
    expect(passes(1e300, 'inf')).toBe(false);
    expect(passes(Number.POSITIVE_INFINITY, 1)).toBe(false);
    expect(passes(0, 'nan')).toBe(false);
  });

  it('wants equal strings, booleans and null, and every expected leaf', () => {
    expect(passes({ a: 'x', b: true, c: null, more: 1 }, { a: 'x', b: true, c: null })).toBe(true);
    expect(passes({ a: 'y' }, { a: 'x' })).toBe(false);
    expect(passes({ a: 1 }, { a: true })).toBe(false);
    expect(passes({}, { a: 0 })).toBe(false);
    expect(passes([1], [1, 2])).toBe(false);
  });

  it('compares tensors by shape, type and entry', () => {
    const expected = { shape: [2], dtype: 'float64', data: [1, 1000] };
    expect(passes({ shape: [2], dtype: 'float64', data: Float64Array.of(1, 1000.9) }, expected)).toBe(true);
    expect(passes({ shape: [1, 2], dtype: 'float64', data: [1, 1000] }, expected)).toBe(false);
    expect(passes({ shape: [2], dtype: 'int64', data: [1, 1000] }, expected)).toBe(false);
    expect(passes({ shape: [2], dtype: 'float64', data: [1.01, 1000] }, expected)).toBe(false);
  });

  it('measures float32 results by the largest entry of their tensor', () => {
    const expected = { shape: [2], dtype: 'float64', data: [1, 1000] };
    expect(passes({ shape: [2], dtype: 'float64', data: [1.019, 1000] }, expected, true)).toBe(true);
    expect(passes({ shape: [2], dtype: 'float64', data: [1.021, 1000] }, expected, true)).toBe(false);
  });

  it('shows adapters the keys of expected and none of its values', () => {
    expect(blank({ a: { shape: [1], dtype: 'float64', data: [3] }, b: [{ c: 1 }, 'x'], d: null })).toEqual({
      a: null,
      b: [{ c: null }, null],
      d: null,
    });
  });
});
