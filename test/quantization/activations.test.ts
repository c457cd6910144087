import { describe, expect, it } from 'vitest';
import { describeActivations, parseActivations } from '../../src/quantization/activations.js';

describe('--activations', () => {
  it('reads every form, and describes it', () => {
    expect(parseActivations('none')).toBeUndefined();
    expect(parseActivations('int8')).toEqual({ kind: 'int', bits: 8, clip: 1, rotated: false });
    expect(parseActivations('int4:rotated')).toEqual({ kind: 'int', bits: 4, clip: 0.9, rotated: true });
    for (const text of ['none', 'int8:0.95', 'int4:1:rotated', 'pvq:16:48:4', 'pvq:32:40:0:rotated']) {
      expect(describeActivations(parseActivations(text))).toBe(text);
    }
  });

  it('gives levels about 1, the root mean square of a group', () => {
    const found = parseActivations('pvq:16:23:3:rotated');
    if (found?.kind !== 'pvq') throw new Error('no pyramid');
    expect(found.levels.length).toBe(8);
    for (let i = 1; i < 8; i++) expect(found.levels[i]).toBeGreaterThan(found.levels[i - 1]);
    expect(found.levels.reduce((sum, level) => sum + level, 0) / 8).toBeCloseTo(1, 1);
  });

  it.each([
    'int6',
    'int8:2',
    'int4:0',
    'int8:x',
    'pvq:16:48',
    'pvq:0:4:1',
    'pvq:16:4.5:1',
    'pvq:16:4:9',
    '',
    'rotated',
  ])('refuses "%s"', (text) => {
    expect(() => parseActivations(text)).toThrow(/--activations/);
  });
});
