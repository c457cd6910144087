import { describe, expect, it } from 'vitest';
import { doubleError, int, none, type Operator, singleError, type vector } from './operator-case.js';

const truth =
  (...values: number[]) =>
  (g: Parameters<ReturnType<typeof vector>>[0]): string =>
    g.node('Cast', [g.integers(values)], { attributes: { to: int(9) } });

const attention: Readonly<Record<string, Operator>> = {
  'heads of their own': {
    op: 'Attention',
    inputs: [
      [2, 2, 3, 4],
      [2, 2, 5, 4],
      [2, 2, 5, 2],
    ],
  },
  'shared keys, causal, capped': {
    op: 'Attention',
    inputs: [
      [1, 4, 3, 2],
      [1, 2, 3, 2],
      [1, 2, 3, 2],
    ],
    attributes: { is_causal: int(1), softcap: 0.8, scale: 0.7 },
  },
  'heads side by side, with a mask that is learnt': {
    op: 'Attention',
    inputs: [
      [2, 3, 8],
      [2, 4, 4],
      [2, 4, 4],
      [3, 4],
    ],
    attributes: { q_num_heads: int(4), kv_num_heads: int(2) },
  },
  'a mask of truths': {
    op: 'Attention',
    inputs: [
      [1, 2, 2, 2],
      [1, 2, 3, 2],
      [1, 2, 3, 2],
      (g) => g.node('Reshape', [truth(1, 0, 1, 0, 1, 1)(g), g.integers([2, 3])]),
    ],
  },
  'keys of before': {
    op: 'Attention',
    inputs: [[1, 2, 2, 2], [1, 2, 2, 2], [1, 2, 2, 2], none, [1, 2, 3, 2], [1, 2, 3, 2]],
    attributes: { is_causal: int(1) },
    outputs: 3,
  },
};

const rotary: Readonly<Record<string, Operator>> = {
  'tables for every place': {
    op: 'RotaryEmbedding',
    inputs: [
      [2, 2, 3, 4],
      [2, 3, 2],
      [2, 3, 2],
    ],
  },
  'neighbours, with positions': {
    op: 'RotaryEmbedding',
    inputs: [[1, 2, 3, 4], [5, 2], [5, 2], (g) => g.node('Reshape', [g.integers([4, 0, 2]), g.integers([1, 3])])],
    attributes: { interleaved: int(1) },
  },
  'part of each head': {
    op: 'RotaryEmbedding',
    inputs: [
      [1, 2, 3, 6],
      [1, 3, 2],
      [1, 3, 2],
    ],
    attributes: { rotary_embedding_dim: int(4) },
  },
};

const simple: Readonly<Record<string, Operator>> = {
  Erf: { op: 'Erf', inputs: [[4, 7]] },
  'Gelu with the error function': { op: 'Gelu', inputs: [[4, 7]] },
  'Gelu with tanh': { op: 'Gelu', inputs: [[4, 7]], attributes: { approximate: 'tanh' } },
  PRelu: { op: 'PRelu', inputs: [[3, 4], [4]] },
};

describe('compound operators in f64 against differences', () => {
  const all = { ...attention, ...rotary, ...simple };
  it.each(Object.keys(all))('%s', async (name) => {
    expect(await doubleError(all[name])).toBeLessThan(1e-7);
  });
});

describe('compound operators in f32 against f64', () => {
  const all = { ...attention, ...rotary, ...simple };
  it.each(Object.keys(all))('%s', async (name) => {
    expect(await singleError(all[name])).toBeLessThan(5e-6);
  });
});
