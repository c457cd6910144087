import { describe, expect, it } from 'vitest';
import { type Placed, readPlacedYaml } from '../../src/formats/placed-yaml.js';

/** Values with their places, as plain data. */
function plain(value: Placed): unknown {
  if (value.kind === 'scalar') return [value.value, value.place];
  if (value.kind === 'list') return value.items.map(plain);
  return Object.fromEntries([...value.entries].map(([key, entry]) => [`${key} ${entry.place}`, plain(entry.value)]));
}

describe('readPlacedYaml', () => {
  it('reads scalars of YAML 1.1 with their places', () => {
    const [document] = readPlacedYaml('a: [1, .5, 1e-5, yes, ~]\nb:\n  c: 012\n  d: 2024-01-01\n', 'f');
    expect(plain(document)).toEqual({
      'a f:1:1': [
        [1, 'f:1:5'],
        [0.5, 'f:1:8'],
        [1e-5, 'f:1:12'],
        [true, 'f:1:18'],
        [null, 'f:1:23'],
      ],
      'b f:2:1': { 'c f:3:3': [10, 'f:3:6'], 'd f:4:3': ['2024-01-01', 'f:4:6'] },
    });
  });

  it('follows aliases and merge keys, own keys first', () => {
    const [document] = readPlacedYaml('x: &x {p: 1, q: 2}\ny: {<<: *x, q: 3}\nz: *x\nv: {<<: [*x, {r: 4}]}\n', 'f');
    expect(plain(document)).toMatchObject({
      'y f:2:1': { 'q f:2:13': [3, 'f:2:16'], 'p f:1:8': [1, 'f:1:11'] },
      'z f:3:1': { 'p f:1:8': [1, 'f:1:11'], 'q f:1:14': [2, 'f:1:17'] },
      'v f:4:1': { 'r f:4:15': [4, 'f:4:18'] },
    });
  });

  it('reads documents and leaves out empty ones', () => {
    expect(readPlacedYaml('---\na: 1\n---\n---\nb: 2\n', 'f')).toHaveLength(2);
    expect(readPlacedYaml('', 'f')).toEqual([]);
    expect(readPlacedYaml('# nothing\n', 'f')).toEqual([]);
  });

  it.each([
    ['a: [1', 'f:1:6: not readable as YAML'],
    ['a: 1\nb: 2\na: 3\n', 'f:3:1: not readable as YAML'],
    ['a: *b', 'f:1:4: the alias *b has no anchor'],
    ['{[1]: 2}', 'f:1:2: a key must be a plain text'],
    ['a: {<<: 1}', 'f:1:9: "<<" merges mappings, and this is none'],
    ['a: &x [*x]', 'values or 100 levels'],
    ['a: &x {b: *x}', 'values or 100 levels'],
  ])('says where %j is wrong', (text, message) => {
    expect(() => readPlacedYaml(text, 'f')).toThrow(message);
  });
});
