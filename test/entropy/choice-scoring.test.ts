import { describe, expect, it } from 'vitest';
import { sharedWindows } from '../../src/entropy/choice-scoring.js';
import { choiceWindow } from '../../src/entropy/choices.js';

const window = (context: number[], continuation: number[], longest = 100) =>
  choiceWindow(Int32Array.from(context), Int32Array.from(continuation), longest);

describe('windows of one question', () => {
  it('share one forward pass where one begins another', () => {
    const windows = [
      window([1, 2, 3], [4]),
      window([1, 2, 3], [5, 6, 7]),
      window([1, 2, 3], [8]),
      window([1, 2, 3], [5, 9]),
    ];
    const { inputs, owner } = sharedWindows(windows);
    expect(inputs.map((ids) => [...ids])).toEqual([[1, 2, 3, 5, 6]]);
    expect(owner).toEqual([0, 0, 0, 0]);
  });

  it('stay apart where they differ, and every owner begins with its window', () => {
    const windows = [window([1, 2], [3, 4]), window([1, 2], [5, 6]), window([9], [3]), window([1, 2], [3, 4])];
    const { inputs, owner } = sharedWindows(windows);
    expect(inputs).toHaveLength(3);
    windows.forEach(({ inputs: own }, i) => {
      expect([...inputs[owner[i]].subarray(0, own.length)]).toEqual([...own]);
    });
  });

  it('are not shared across different cuts of one context', () => {
    const { inputs } = sharedWindows([window([1, 2, 3, 4], [5], 4), window([1, 2, 3, 4], [5, 6, 7], 4)]);
    expect(inputs.map((ids) => [...ids])).toEqual([
      [1, 2, 3, 4],
      [3, 4, 5, 6],
    ]);
  });
});
