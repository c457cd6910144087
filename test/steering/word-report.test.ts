import { describe, expect, it } from 'vitest';
import { repliesOf, STOP_WORDS, thoughtOf, wordsBody } from '../../src/steering/word-report.js';

const SETTING = { stopWords: STOP_WORDS, smoothing: 0.5, minimumCount: 1, top: 2 };

describe('words of thoughts', () => {
  it('are those before the action', () => {
    expect(thoughtOf('Thought: both vary.\nAction: I choose Button 1.').trim()).toBe('both vary.');
    expect(thoughtOf('no such words')).toBe('no such words');
  });

  it('come from completions, else from the reply that was carried out', () => {
    expect(repliesOf({ completions: ['a', 'b'], reply: 'a' }, 'row 0')).toEqual(['a', 'b']);
    expect(repliesOf({ reply: 'a' }, 'row 0')).toEqual(['a']);
    expect(repliesOf({ reply: null }, 'row 0')).toEqual([]);
    expect(() => repliesOf({ text: 'a' }, 'log.jsonl:3')).toThrow(/log\.jsonl:3/);
  });

  it('have an error that falls with their counts', () => {
    const { rows } = wordsBody(['risk risk risk', 'safe'], ['doubt', 'risk'], SETTING);
    const risk = rows.find(({ word }) => word === 'risk');
    expect(risk?.log_ratio_se).toBeCloseTo(Math.sqrt(1 / 1.5 + 1 / 3.5), 14);
  });

  it('need replies that differ', () => {
    expect(() => wordsBody(['x', 'y'], ['same', 'same'], SETTING)).toThrow(/--steered: every reply/);
    expect(() => wordsBody([], ['a'], SETTING)).toThrow(/--default: no replies/);
  });
});
