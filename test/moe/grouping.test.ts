import { describe, expect, it } from 'vitest';
import {
  groupAroundDominants,
  labelsByFirstAppearance,
  membersOf,
  mostUsedMembers,
  randomGroups,
  singletonGroups,
} from '../../src/moe/grouping.js';
import { createRandom } from '../../src/random.js';

const usage = Float64Array.of(0.1, 0.4, 0.2, 0.3);
/** Rows are experts 0..3; expert 0 is like 3, expert 2 like both alike. */
const similarity = Float64Array.of(1, 0.2, 0.5, 0.9, 0.2, 1, 0.6, 0.1, 0.5, 0.6, 1, 0.6, 0.9, 0.1, 0.6, 1);

describe('groups around dominants', () => {
  it('follows the most similar of the most used', () => {
    const grouping = groupAroundDominants(7, usage, similarity, 2);
    expect(grouping).toEqual({ layer: 7, labels: Int32Array.of(1, 0, 0, 1), dominants: Int32Array.of(1, 3) });
    expect(membersOf(grouping)).toEqual([Int32Array.of(1, 2), Int32Array.of(0, 3)]);
  });

  it('numbers groups by index when asked', () => {
    const more = Float64Array.of(0.1, 0.2, 0.3, 0.4);
    expect(groupAroundDominants(0, more, similarity, 2, { order: 'index' }).dominants).toEqual(Int32Array.of(2, 3));
    expect(groupAroundDominants(0, more, similarity, 2).dominants).toEqual(Int32Array.of(3, 2));
  });

  it('fills groups up to a capacity in the order of usage', () => {
    const alike = new Float64Array(16).fill(1);
    expect([...groupAroundDominants(0, usage, alike, 2).labels]).toEqual([0, 0, 0, 1]);
    expect([...groupAroundDominants(0, usage, alike, 2, { capacity: 2 }).labels]).toEqual([1, 0, 0, 1]);
    expect(() => groupAroundDominants(0, usage, alike, 1, { capacity: 3 })).toThrow(/raise the capacity/);
    expect(() => groupAroundDominants(3, usage, alike, 5)).toThrow(/layer 3: 5 groups/);
  });

  it('changes with the order of the experts as the experts do', () => {
    const random = createRandom(5);
    const n = 10;
    const f = Float64Array.from({ length: n }, () => random.uniform());
    const s = Float64Array.from({ length: n * n }, () => random.uniform());
    const order = random.permutation(n);
    const base = groupAroundDominants(0, f, s, 4);
    const moved = groupAroundDominants(
      0,
      Float64Array.from(order, (e) => f[e]),
      Float64Array.from({ length: n * n }, (_, at) => s[order[Math.floor(at / n)] * n + order[at % n]]),
      4,
    );
    expect([...moved.labels]).toEqual([...order].map((e) => base.labels[e]));
    expect([...moved.dominants].map((e) => order[e])).toEqual([...base.dominants]);
  });

  it('numbers singletons by usage or by index', () => {
    expect(singletonGroups(0, usage)).toEqual({
      layer: 0,
      labels: Int32Array.of(3, 0, 2, 1),
      dominants: Int32Array.of(1, 3, 2, 0),
    });
    expect([...singletonGroups(0, usage, 'index').labels]).toEqual([0, 1, 2, 3]);
  });

  it('draws groups of equal size', () => {
    const { labels, dominants } = randomGroups(0, createRandom(1).permutation(10), 3);
    const sizes = [0, 1, 2].map((group) => labels.filter((label) => label === group).length);
    expect(sizes.sort()).toEqual([3, 3, 4]);
    expect([...dominants].map((e) => labels[e])).toEqual([0, 1, 2]);
  });

  it('renumbers labels and finds the most used member', () => {
    expect([...labelsByFirstAppearance(Int32Array.of(4, -1, 2, 4))]).toEqual([0, -1, 1, 0]);
    expect([...mostUsedMembers(Int32Array.of(0, 0, 1, -1), 2, Float64Array.of(0.2, 0.2, 0, 0.9))]).toEqual([0, 2]);
  });
});
