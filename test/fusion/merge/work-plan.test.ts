import { describe, expect, it } from 'vitest';
import { mergeMethod } from '../../../src/fusion/merge/methods/registry.js';
import type { MergePlan, MergeSource, PlannedTensor } from '../../../src/fusion/merge/types.js';
import { planWork } from '../../../src/fusion/merge/work-plan.js';

const shapes: Record<string, readonly number[]> = { embed: [1000, 64], norm: [64], head: [10, 64], none: [0, 4] };
const source = (text: string): MergeSource => ({
  reference: { text, model: text },
  path: text,
  tensors: new Map(Object.entries(shapes).map(([name, shape]) => [name, { dtype: 'BF16', shape }])),
  read: () => Promise.resolve(),
  close: () => undefined,
});

function plan(method: string): MergePlan {
  const tensor = (name: string): PlannedTensor => ({
    name,
    module: name,
    vocabulary: false,
    inputs: [0, 1].map((model) => ({ model, tensor: name, parameters: {} })),
    parameters: {},
    shape: shapes[name],
    dtype: 'BF16',
  });
  return {
    method: mergeMethod(method),
    models: [],
    tensors: Object.keys(shapes).map(tensor),
    layers: 0,
    configFrom: 0,
    configChanges: { top: {}, nested: {} },
    warnings: [],
  };
}

const limits = (memoryBytes: number) => ({ memoryBytes, placeOf: () => undefined, beside: () => 0 });

describe('work of a merge', () => {
  const sources = [source('a'), source('b')];

  it('cuts rows where the method sees single elements, and covers every row once', () => {
    const memory = 60_000;
    const work = planWork(plan('linear'), sources, limits(memory));
    for (const [index, { shape }] of plan('linear').tensors.entries()) {
      const items = work.items.filter(({ tensor }) => tensor === index);
      expect(items[0].from).toBe(0);
      for (const [i, item] of items.entries()) expect(item.from).toBe(i === 0 ? 0 : items[i - 1].to);
      expect(items.at(-1)).toMatchObject({ to: shape[0], last: true });
      expect(items.filter(({ last }) => last)).toHaveLength(1);
    }
    expect(work.items.length).toBeGreaterThan(15);
    expect(Math.max(...work.items.map(({ bytes }) => bytes))).toBeLessThanOrEqual(memory / 3);
    expect(work.peakBytes).toBeLessThanOrEqual(memory);
    const elements = 1000 * 64 + 64 + 640;
    expect(work).toMatchObject({ elements, bytesWritten: 2 * elements, bytesRead: 4 * elements });
  });

  it('leaves whole what must be seen as a whole, and says what does not fit', () => {
    const work = planWork(plan('slerp'), sources, limits(1e6));
    expect(work.items).toHaveLength(4);
    expect(() => planWork(plan('slerp'), sources, limits(60_000))).toThrow(/slerp must see tensor embed as a whole/);
  });

  it('follows the files of the first inputs', () => {
    const order = ['head', 'norm', 'embed', 'none'];
    const placeOf = (_: number, name: string) => ({ file: 'f', offset: order.indexOf(name) });
    const work = planWork(plan('slerp'), sources, { ...limits(1e6), placeOf });
    expect(work.items.map(({ tensor }) => Object.keys(shapes)[tensor])).toEqual(order);
  });
});
