import { describe, expect, it } from 'vitest';
import { readEquation } from '../../../src/training/autodiff/rules/einsum.js';
import { doubleError, type Operator } from './operator-case.js';

const einsum = (equation: string, ...inputs: number[][]): Operator => ({
  op: 'Einsum',
  inputs,
  attributes: { equation },
});

const cases: readonly Operator[] = [
  einsum('ij,jk->ik', [2, 3], [3, 4]),
  einsum('bhid,bhjd->bhij', [2, 2, 3, 4], [2, 2, 2, 4]),
  einsum('ij,jk', [2, 3], [3, 4]),
  einsum('ij->j', [2, 3]),
  einsum('ij->', [2, 3]),
  einsum('ij,kl->il', [2, 3], [3, 2]),
  einsum('...ij,...jk->...ik', [2, 2, 3], [2, 3, 4]),
  einsum('...ij,...jk->...ik', [1, 2, 3], [2, 3, 2]),
  einsum('bij,jk,kl->bil', [2, 3, 2], [2, 3], [3, 2]),
  einsum('i,i->', [4], [4]),
  einsum('ab...->...ba', [2, 3, 4]),
];

describe('Einsum', () => {
  it.each(cases)('$attributes.equation of $inputs', async (operator) => {
    expect(await doubleError(operator)).toBeLessThan(1e-7);
  });

  it('reads ellipses and implicit outputs', () => {
    const { operands, output } = readEquation('...ij,jk', [4, 2]);
    expect(output).toEqual([...operands[0].slice(0, 2), 'i', 'k']);
    expect(new Set(operands[0]).size).toBe(4);
  });

  it('refuses a diagonal, and says so', async () => {
    await expect(doubleError(einsum('ii->i', [3, 3]))).rejects.toThrow('has a letter twice');
  });
});
