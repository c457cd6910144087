import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { countEntropy, distributionEntropy } from '../../src/steering/action-entropy.js';
import { checkParsed, createActionReader, patternOfActions } from '../../src/steering/action-pattern.js';

const ACTIONS = ['Button 1', 'Button 2', 'Button 12'];
const reader = createActionReader({ source: patternOfActions(ACTIONS, 'I choose'), actions: ACTIONS });

describe('the action of a completion', () => {
  it('is the first match, whatever the case and the spaces', () => {
    expect(reader.read('Thought: Button 2 is fine.\nAction: i  choose button  2.')).toBe(1);
    expect(reader.read('I choose Button 1. I choose Button 2.')).toBe(0);
  });

  it('is not the beginning of another name', () => {
    expect(reader.read('I choose Button 12.')).toBe(2);
    expect(reader.read('I choose Button 123.')).toBeNull();
    expect(reader.read('I choose Button N.')).toBeNull();
  });

  it('is certain once text follows it', () => {
    expect(reader.settled('I choose Button 1')).toBe(false);
    expect(reader.settled('I choose Button 1.')).toBe(true);
    expect(reader.settled('I choose Button 12')).toBe(false);
  });

  it('is null for a group that names no action', () => {
    const loose = createActionReader({ source: 'Action: (.*)', actions: ['left', 'right'] });
    expect(loose.read('Action: right')).toBe(1);
    expect(loose.read('Action: up')).toBeNull();
  });

  it('takes names with the signs of regular expressions', () => {
    const odd = ['a.b', 'a+b (c)'];
    const own = createActionReader({ source: patternOfActions(odd, ''), actions: odd });
    expect(own.read('say a+b (c) now')).toBe(1);
    expect(own.read('say axb now')).toBeNull();
  });
});

describe('patterns that cannot be used', () => {
  it.each([
    ['Button \\d', /has 0 groups/],
    ['(Button) (\\d)', /has 2 groups/],
    ['(Button', /action-pattern/],
  ])('%s', (source, message) => {
    expect(() => createActionReader({ source, actions: ['a', 'b'] })).toThrow(message);
  });

  it('one action only: its entropy is zero', () => {
    expect(() => createActionReader({ source: '(a)', actions: ['a'] })).toThrow(/only action.*entropy is zero/);
  });

  it('two actions of one name', () => {
    expect(() => createActionReader({ source: '(a)', actions: ['a', ' A '] })).toThrow(InputError);
  });

  it('a pattern that matches nothing names the prompts', () => {
    const pattern = { source: '(x|y)', actions: ['x', 'y'] };
    expect(() => checkParsed(pattern, ['prompt 0', 'prompt 1'], 2)).toThrow(/prompt 0; prompt 1/);
    expect(() => checkParsed(pattern, ['prompt 0'], 2)).not.toThrow();
  });
});

describe('entropy of counts', () => {
  it('gives the numbers of the specification', () => {
    expect(countEntropy([24, 1]).pluginNats).toBeCloseTo(0.1679, 4);
    expect(countEntropy([13, 12]).pluginNats).toBeCloseTo(0.6923, 4);
  });

  it('corrects the bias by the observed actions', () => {
    const { pluginNats, millerMadowNats } = countEntropy([20, 5, 0]);
    expect(millerMadowNats - pluginNats).toBeCloseTo(1 / 50, 14);
    expect(countEntropy([25, 0]).millerMadowNats).toBe(0);
  });

  it('is unknown without a completion that parses', () => {
    expect(countEntropy([0, 0])).toEqual({ valid: 0, pluginNats: Number.NaN, millerMadowNats: Number.NaN });
  });

  it('takes 0 ln 0 as 0', () => {
    expect(distributionEntropy([0, 1])).toBe(0);
    expect(distributionEntropy([0.5, 0.5])).toBeCloseTo(Math.LN2, 15);
  });
});
