import { describe, expect, it } from 'vitest';
import { missingEntropy, stepEntropy } from '../../src/steering/step-entropy.js';
import { wordRatios } from '../../src/steering/word-ratio.js';

describe('entropy of a logged step', () => {
  it('is the plug-in of counts, by list or by name', () => {
    expect(stepEntropy({ counts: [24, 1] }, 'x', [])?.entropyNats).toBeCloseTo(0.1679, 4);
    const order: string[] = [];
    expect(stepEntropy({ counts: { left: 1, right: 3 } }, 'x', order)?.counts).toEqual([1, 3]);
    expect(stepEntropy({ counts: { right: 2 } }, 'x', order)?.counts).toEqual([0, 2]);
    expect(stepEntropy({ counts: { right: 2, up: 2 } }, 'x', order)?.counts).toEqual([0, 2, 2]);
    expect(stepEntropy({ counts: [0, 0] }, 'x', [])?.entropyNats).toBeNaN();
  });

  it('is read from completions by a pattern', () => {
    const pattern = { source: 'choose (A|B)', actions: ['A', 'B'] };
    const found = stepEntropy({ completions: ['I choose A.', 'nothing', 'choose b'] }, 'x', [], pattern);
    expect(found).toMatchObject({ source: 'completions', counts: [1, 1], entropyNats: Math.LN2 });
  });

  it('is taken as it stands where it is known, in nats or bits, and first where that is asked for', () => {
    expect(stepEntropy({ entropy_nats: 0.4 }, 'x', [])).toEqual({ source: 'logged', entropyNats: 0.4 });
    expect(stepEntropy({ entropy_bits: 1 }, 'x', [])?.entropyNats).toBe(Math.LN2);
    const both = { counts: [1, 1], entropy_nats: 0.1 };
    expect(stepEntropy(both, 'x', [])?.source).toBe('counts');
    expect(stepEntropy(both, 'x', [], undefined, 'logged')?.entropyNats).toBe(0.1);
    expect(stepEntropy({ prompt: 'p' }, 'x', [])).toBeUndefined();
  });

  it('refuses what is no count or entropy, with the row', () => {
    expect(() => stepEntropy({ counts: [3] }, 'a.jsonl:4', [])).toThrow('a.jsonl:4: "counts" has one action');
    expect(() => stepEntropy({ counts: [3, -1] }, 'r', [])).toThrow('count of action 2 is -1');
    expect(() => stepEntropy({ counts: 'x' }, 'r', [])).toThrow('expected a list of counts');
    expect(() => stepEntropy({ entropy_nats: -0.1 }, 'r', [])).toThrow('"entropy_nats" is -0.1');
    expect(() => stepEntropy({ entropy_nats: 'nan' }, 'r', [])).toThrow('finite number');
    expect(missingEntropy({ entropy_nat: 1 }, 'r').message).toContain('is "entropy_nat" meant?');
  });
});

describe('word ratios', () => {
  it('rank both ways, leave rare words out, and refuse texts without words', () => {
    const found = wordRatios(['superior superior button'], ["button variance variance isn't"], {
      stopwords: ['Button'],
      minimumCount: 2,
    });
    expect(found).toMatchObject({ defaultWords: 2, steeredWords: 3 });
    expect(found.words.map(({ word }) => word)).toEqual(['variance', 'superior']);
    expect(found.words[0].ratio).toBeCloseTo(2.5 / 4.5 / (0.5 / 3.5), 12);
    expect(() => wordRatios(['the'], ['the'], { stopwords: ['the'] })).toThrow('no word is left');
  });
});
