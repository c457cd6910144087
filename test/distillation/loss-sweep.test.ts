import { describe, expect, it } from 'vitest';
import { expandLosses, parseSweep } from '../../src/distillation/loss-sweep.js';
import { parseLosses } from '../../src/training/losses/loss-text.js';

const texts = (text: string, ...sweeps: string[]) =>
  expandLosses(text, sweeps.map(parseSweep)).map((member) => [member.text, member.choice]);

describe('families of losses', () => {
  it('expands braces, in parameters and weights', () => {
    expect(texts('pld(tau={1,2})')).toEqual([
      ['pld(tau=1)', 'tau=1'],
      ['pld(tau=2)', 'tau=2'],
    ]);
    expect(texts('ce + {1, 2}*dist(tau={1,4})').map(([text]) => text)).toEqual([
      'ce + 1*dist(tau=1)',
      'ce + 1*dist(tau=4)',
      'ce + 2*dist(tau=1)',
      'ce + 2*dist(tau=4)',
    ]);
    expect(texts('ce')).toEqual([['ce', '']]);
  });

  it('tries swept values in the terms that take them and do not state them', () => {
    expect(texts('pld', 'tau=1,2').map(([text]) => text)).toEqual(['pld(tau=1)', 'pld(tau=2)']);
    expect(texts('ce + dist(beta=2)', 'dist.tau=4')).toEqual([['ce + dist(beta=2,tau=4)', 'tau=4']]);
    expect(texts('pld(tau=3)', 'tau=1,2')).toEqual([['pld(tau=3)', '']]);
    expect(texts('kd + pld', 'kd.T=2', 'pld.tau=5')).toEqual([['kd(T=2) + pld(tau=5)', 'T=2 tau=5']]);
    expect(texts('ce', 'tau=1')).toEqual([['ce', '']]);
    for (const [text] of texts('0.1*ce + 0.9*kd', 'T=1,2')) expect(parseLosses(text)).toHaveLength(2);
  });

  it('refuses what it cannot read', () => {
    expect(() => parseSweep('tau')).toThrow('write parameter=value,value');
    expect(() => parseSweep('tau=1,')).toThrow('write parameter=value,value');
    expect(() => parseSweep('plds.tau=1')).toThrow('did you mean "pld"');
    expect(() => parseSweep('pld.taus=1')).toThrow('has no parameter "taus"; did you mean "tau"');
  });
});
