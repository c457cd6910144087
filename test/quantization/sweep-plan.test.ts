import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { parseMethods, planSweep } from '../../src/quantization/sweep-plan.js';
import type { SelectedTensor } from '../../src/quantization/tensor-selection.js';

const tensor = (name: string, rows: number, columns: number): SelectedTensor => ({
  name,
  role: 'q',
  layer: 0,
  rows,
  columns,
  transposed: false,
  matrices: 1,
  inputs: [],
  tensor: { name, dtype: 'F32', shape: [rows, columns], file: 'x', offset: 0, byteLength: 4 * rows * columns },
});
const wide = [tensor('a', 64, 512), tensor('b', 64, 640)];

describe('planSweep', () => {
  it('takes the nearest setting of a rate and lists rates that none is near', () => {
    const { candidates, leftOut } = planSweep({ methods: parseMethods(['rtn']), rates: [2.25, 3, 7.2], tensors: wide });
    expect(candidates.map(({ id }) => id)).toEqual(['rtn:bits=2:group=64', 'rtn:bits=3:group=128']);
    expect(candidates[1].foreseenBits / (64 * 1152)).toBeCloseTo(3.125, 12);
    expect(leftOut).toHaveLength(1);
    expect(leftOut[0].reason).toMatch(/cannot be reached: the nearest setting/);
  });

  it('runs a setting once for all rates that it stands for', () => {
    const { candidates } = planSweep({ methods: parseMethods(['lloyd-max']), rates: [2, 2.05], tensors: wide });
    expect(candidates.map(({ askedBitsPerWeight }) => askedBitsPerWeight)).toEqual([[2, 2.05]]);
  });

  it('takes what llama.cpp takes for rows that are no super-blocks, unless none is', () => {
    const methods = parseMethods(['q4_k']);
    const { candidates } = planSweep({ methods, rates: [], tensors: wide });
    expect(candidates[0].foreseenBits).toBe(64 * 512 * 4.5 + 64 * 640 * 5.5);
    const none = planSweep({ methods, rates: [], tensors: [wide[1]] });
    expect(none.candidates).toEqual([]);
    expect(none.leftOut[0].reason).toMatch(/no tensor fits/);
  });

  it('runs nothing at or above the bits of a quantised source', () => {
    const methods = parseMethods(['q4_0,pvq']);
    const plan = planSweep({ methods, rates: [3, 5], tensors: wide, sourceBitsPerWeight: 4.5 });
    expect(plan.candidates.map(({ id }) => id)).toEqual(['pvq:bpw=3']);
    expect(plan.leftOut.map(({ method }) => method)).toEqual(['q4_0', 'pvq:bpw=5']);
  });
});

describe('parseMethods', () => {
  it('reads settings', () => {
    expect(parseMethods(['nf4, rtn:bits=3:group=0'])[1]).toEqual({
      text: 'rtn:bits=3:group=0',
      name: 'rtn',
      fixed: { bits: 3, group: 0 },
    });
  });

  it.each(['rnt', 'rtn:bits=3', 'rtn:bits=1:group=32', 'rtn:bit=3:group=32', 'pvq:bits=3'])('refuses %s', (text) => {
    expect(() => parseMethods([text])).toThrow(InputError);
  });
});
