import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { type JsonLine, readJsonLines } from '../../src/kernels/json-columns.js';
import { configureKernels, nativeKernels } from '../../src/kernels/native.js';

afterEach(() => configureKernels({ native: true }));

const all = (_key: string): boolean => true;

function read(text: string, native: boolean, isWanted = all, threads = 1): JsonLine[] {
  configureKernels({ native });
  return [...readJsonLines(Buffer.from(text), isWanted, threads)];
}

/** Both ways, held together. */
function both(text: string, isWanted = all): JsonLine[] {
  const reference = read(text, false, isWanted);
  expect(read(text, true, isWanted)).toEqual(reference);
  expect(read(text, true, isWanted, 3)).toEqual(reference);
  return reference;
}

const fieldsOf = (line: JsonLine): Record<string, unknown> =>
  line.kind === 'record' ? Object.fromEntries(line.fields) : {};
const numbers = (shape: number[], ...values: number[]): object => ({ shape, values: Float64Array.from(values) });

describe('lines of JSON', () => {
  it('has a native scanner', () => {
    expect(nativeKernels()?.scanJsonLines).toBeTypeOf('function');
  });

  it('gives numbers, texts, truth values and lists', () => {
    const [line] = both(
      '{"a": 1.5e-3, "b": "x\\n\\u00e9", "c": true, "d": null, "e": [1, -0, 2.5], "f": [], "g": {"h": [1]}}',
    );
    expect(fieldsOf(line)).toEqual({
      a: 0.0015,
      b: 'x\né',
      c: true,
      d: null,
      e: numbers([3], 1, -0, 2.5),
      f: numbers([0]),
      g: { h: [1] },
    });
  });

  it('flattens regular lists, and leaves others', () => {
    const [line] = both(
      '{"a": [[1,2],[3,4],[5,6]], "b": [[[1],[2]],[[3],[4]]], "c": [[1],[2,3]], "d": [1,[2]], "e": [[[[1]]]], "f": [[],[]], "g": ["x"], "h": [[1],2], "i": [[],[1]]}',
    );
    expect(fieldsOf(line)).toEqual({
      a: numbers([3, 2], 1, 2, 3, 4, 5, 6),
      b: numbers([2, 2, 1], 1, 2, 3, 4),
      c: [[1], [2, 3]],
      d: [1, [2]],
      e: [[[[1]]]],
      f: numbers([2, 0]),
      g: ['x'],
      h: [[1], 2],
      i: [[], [1]],
    });
  });

  it('reads what Python writes for numbers that are not finite', () => {
    const [line] = both(
      '{"a": NaN, "b": [NaN, -Infinity, Infinity, null, true, false], "c": [["NaN", NaN]], "d": "NaN, Infinity"}',
    );
    expect(fieldsOf(line)).toEqual({
      a: Number.NaN,
      b: numbers([6], Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN, 1, 0),
      c: [['NaN', Number.NaN]],
      d: 'NaN, Infinity',
    });
  });

  it('counts blank lines, carriage returns, a last line without an end', () => {
    expect(both('{"a":1}\r\n\n  \n {"a":2}').map(({ line, kind }) => [line, kind])).toEqual([
      [0, 'record'],
      [1, 'blank'],
      [2, 'blank'],
      [3, 'record'],
    ]);
    expect(both('')).toEqual([]);
  });

  it('does not decode what is not wanted', () => {
    const [line] = both('{"a": [1, 2], "b": "text", "c": 3, "d": [4]}', (key) => key === 'd');
    expect(fieldsOf(line)).toEqual({ a: undefined, b: undefined, c: 3, d: numbers([1], 4) });
  });

  it.each([
    '{"a": 01}',
    '{"a": 1.}',
    '{"a": .5}',
    '{"a": +1}',
    '{"a": 1e}',
    '{"a": [1,]}',
    '{"a": [1 2]}',
    '{"a" 1}',
    '{"a": 1,}',
    '{a: 1}',
    "{'a': 1}",
    '{"a": "\t"}',
    '{"a": "\\x"}',
    '{"a": "\\u12g4"}',
    '{"a": nul}',
    '{"a": -}',
    '{"a": 1} x',
    '{"a": 1',
    '{"a": [1',
    '{"a": "x',
    '[1, 2]',
    '7',
    'null',
    '{"a": -NaN}',
    '{"a": tru}',
    '{"a": [true, fals]}',
  ])('refuses %s', (text) => {
    expect(both(`{"b": 1}\n${text}\n{"c": 2}`).map(({ kind }) => kind)).toEqual(['record', 'refused', 'record']);
  });

  it('goes as deep as JSON.parse does', () => {
    const deep = `{"a": ${'['.repeat(400)}"x"${']'.repeat(400)}}`;
    expect(both(deep)[0].kind).toBe('record');
  });

  it('rounds every number to the nearest double', () => {
    const hard = [
      '9007199254740993',
      '9007199254740992.9999999999999999999',
      '2.2250738585072011e-308',
      '4.9e-324',
      '2.4e-324',
      '1e400',
      '-1e400',
      '1e-400',
      '0e999',
      '1.7976931348623157e308',
      '123456789012345678901234567890',
      '0.1',
      '-0.30000000000000004',
      '7.2057594037927933e16',
      '5e-20',
      '8.98846567431158e307',
      '1e22',
      '1e23',
      '0.000000000000000000000000000000000000000000000000000001',
      '-0.0',
      '-0',
    ];
    const [line] = both(`{"a": [${hard.join(',')}]}`);
    expect(fieldsOf(line)).toEqual({ a: numbers([hard.length], ...hard.map(Number)) });
    fc.assert(
      fc.property(
        fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1 }),
        fc.array(fc.tuple(fc.bigInt(), fc.integer({ min: -330, max: 310 }))),
        (doubles, written) => {
          const texts = [
            ...doubles.map((x) => JSON.stringify(x)),
            ...written.map(([digits, exponent]) => `${digits}e${exponent}`),
          ];
          const [read1] = read(`{"a": [${texts.join(',')}]}`, true);
          expect(fieldsOf(read1)).toEqual({ a: numbers([texts.length], ...texts.map(Number)) });
        },
      ),
    );
  });

  it('is JSON.parse on any records', () => {
    const value = fc.jsonValue({ maxDepth: 4 });
    fc.assert(
      fc.property(fc.array(fc.dictionary(fc.string(), value), { maxLength: 20 }), (records) => {
        both(records.map((record) => JSON.stringify(record)).join('\n'));
      }),
      { numRuns: 60 },
    );
  });

  it('does not depend on threads where parts are many', () => {
    const text = Array.from(
      { length: 1500 },
      (_, i) => `{"i": ${i}, "x": [${Array.from({ length: 20 }, (_, j) => Math.sin(i * 20 + j)).join(', ')}]}`,
    ).join('\n');
    expect(text.length).toBeGreaterThan(1 << 19);
    const lines = both(text);
    expect(lines.length).toBe(1500);
    expect(fieldsOf(lines[1499])).toMatchObject({ i: 1499 });
  });
});
