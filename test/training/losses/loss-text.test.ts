import { describe, expect, test } from 'vitest';
import { parseLosses, splitLossList, termWeight } from '../../../src/training/losses/loss-text.js';

describe('losses as text', () => {
  test.each<[string, [number, string, number][]]>([
    ['ce', [[1, 'ce', 0]]],
    [
      '0.1*ce + 0.9*kd(T=4)',
      [
        [0.1, 'ce', 0],
        [0.9, 'kd(T=4)', 0],
      ],
    ],
    [
      '1e-3*ce+kd(T=2,warmup=20)',
      [
        [0.001, 'ce', 0],
        [1, 'kd(T=2)', 20],
      ],
    ],
    ['kd( T = 1 )', [[1, 'kd', 0]]],
    ['.5 * hinge-ranking(margin=0.2)', [[0.5, 'hinge-ranking(margin=0.2)', 0]]],
    ['dkd(warmup=5)', [[1, 'dkd', 5]]],
  ])('%s', (text, read) => {
    expect(parseLosses(text).map(({ weight, loss, warmUpEpochs }) => [weight, loss.label, warmUpEpochs])).toEqual(read);
  });

  test.each([
    ['', /empty/],
    ['kdd', /no loss "kdd".*did you mean "kd"/],
    ['kd(t=3)', /no parameter "t".*did you mean "T"/],
    ['kd(T=-1)', /T must be a number above 0; it is -1/],
    ['kd(T=hot)', /T must be a number above 0; it is hot/],
    ['kd(T=1,T=2)', /given twice/],
    ['kd(missing=zer)', /did you mean "zero"/],
    ['ce+', /"" is no loss/],
    ['-1*ce', /is no loss/],
    ['kd(T)', /write name=value/],
    ['ce(warmup=-1)', /warmup must be/],
    ['jsd(beta=2)', /at least 0 and at most 1; it is 2/],
  ])('refuses %s', (text, message) => {
    expect(() => parseLosses(text)).toThrow(message);
  });

  test('a weight grows over its warm-up', () => {
    const [term] = parseLosses('2*dkd(warmup=4)');
    expect([0, 1, 4, 9].map((epoch) => termWeight(term, epoch))).toEqual([0, 0.5, 2, 2]);
  });

  test('lists split outside parentheses', () => {
    expect(splitLossList('ce, kd(T=4,missing=zero); 0.1*ce + kd')).toEqual([
      'ce',
      'kd(T=4,missing=zero)',
      '0.1*ce + kd',
    ]);
  });
});
