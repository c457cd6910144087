import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFrame, firstElements } from '../../../src/fusion/evidence/focal-sets.js';
import { jousselmeDistance } from '../../../src/fusion/evidence/jousselme.js';
import {
  createMassSums,
  discounted,
  type MassFunction,
  massFunction,
  namedMasses,
  type Source,
  vacuous,
  withoutSmall,
} from '../../../src/fusion/evidence/mass-function.js';
import { conflictOf, measureSets, pignistic, uncertaintyOf } from '../../../src/fusion/evidence/measures.js';
import { conjunctive, disjunctive } from '../../../src/fusion/evidence/products.js';
import { RULES, ruleNamed } from '../../../src/fusion/evidence/rules.js';
import { createRandom } from '../../../src/random.js';

const ABC = createFrame(['A', 'B', 'C']);
const source = (name: string, masses: Record<string, number>, frame = ABC): Source => ({
  name,
  masses: massFunction(
    frame,
    name,
    Object.entries(masses).map(([set, mass]) => ({ set, mass })),
  ),
});
const untrimmed = (masses: MassFunction): MassFunction => masses;
const combine = (rule: string, sources: readonly Source[]): Map<string, number> =>
  namedMasses(ruleNamed(rule).combine(sources, untrimmed));

const frameOf = (n: number) => createFrame(Array.from({ length: n }, (_, i) => `e${String(i).padStart(2, '0')}`));

/** Random masses over `focal` subsets of n elements, both words in use where n > 32. */
function randomMasses(n: number, focal: number, seed: number): MassFunction {
  const random = createRandom(seed);
  const whole = firstElements(n);
  const sums = createMassSums(frameOf(n));
  const weights = Array.from({ length: focal }, () => 0.1 + random.uniform());
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  for (const weight of weights) {
    const low = Number(random.next64() & 0xffffffffn) & whole.low;
    const high = Number(random.next64() & 0xffffffffn) & whole.high;
    sums.add(low === 0 && high === 0 ? 1 : low, high, weight / total);
  }
  return sums.result();
}
const masses = fc.record({
  n: fc.integer({ min: 2, max: 5 }),
  seeds: fc.array(fc.nat(), { minLength: 2, maxLength: 4 }),
});
const sourcesOf = ({ n, seeds }: { n: number; seeds: number[] }): Source[] =>
  seeds.map((seed, s) => ({ name: `s${s}`, masses: discounted(randomMasses(n, 4, seed), 0.9) }));

function expectEqual(a: MassFunction, b: MassFunction, digits = 12): void {
  const [x, y] = [namedMasses(a), namedMasses(b)];
  for (const set of new Set([...x.keys(), ...y.keys()])) expect(x.get(set) ?? 0).toBeCloseTo(y.get(set) ?? 0, digits);
}

describe('combination rules', () => {
  it("gives Zadeh's example and that of five sensors", () => {
    const zadeh = [source('one', { A: 0.99, B: 0.01 }), source('two', { B: 0.01, C: 0.99 })];
    expect(combine('dempster', zadeh).get('B')).toBeCloseTo(1, 14);
    expect(conflictOf(zadeh).total).toBeCloseTo(0.9999, 14);
    expect(conflictOf(zadeh).weightNats).toBeCloseTo(-Math.log(0.0001), 9);
    const five = [
      source('1', { A: 0.41, B: 0.29, C: 0.3 }),
      source('2', { B: 0.9, C: 0.1 }),
      source('3', { A: 0.58, B: 0.07, 'A|C': 0.35 }),
      source('4', { A: 0.55, B: 0.1, 'A|C': 0.35 }),
      source('5', { A: 0.6, B: 0.1, 'A|C': 0.3 }),
    ];
    expect(combine('dempster', five).get('C')).toBeCloseTo(0.8578, 4);
    expect(combine('dempster', five).has('A')).toBe(false);
    expect(combine('murphy', five).get('A')).toBeCloseTo(0.962, 4);
    expect(combine('weighted-average', five).get('A')).toBeCloseTo(0.9851, 4);
  });

  it('names the sources in total conflict and another rule; every other rule but Dempster has a result', () => {
    const sources = [source('left', { A: 1 }), source('right', { B: 1 })];
    expect(() => combine('dempster', sources)).toThrow(/sources left and right have no set in common.*--rule pcr5/);
    for (const { name } of RULES.filter((rule) => rule.name !== 'dempster')) {
      const total = [...combine(name, sources).values()].reduce((sum, mass) => sum + mass, 0);
      expect(total, name).toBeCloseTo(1, 12);
    }
    expect(conflictOf(sources).weightNats).toBe(Number.POSITIVE_INFINITY);
    expect([...conflictOf(sources).perStep]).toEqual([1]);
  });

  it('rules that claim it do not depend on the order; vacuous sources change none of Dempster, Smets and Yager', () => {
    fc.assert(
      fc.property(masses, (given) => {
        const sources = sourcesOf(given);
        for (const { name, ordered, combine: rule } of RULES) {
          if (ordered) continue;
          expectEqual(rule(sources, untrimmed), rule([...sources].reverse(), untrimmed));
          if (!['dempster', 'smets', 'yager'].includes(name)) continue;
          const ignorant = { name: 'ignorant', masses: vacuous(sources[0].masses.frame) };
          expectEqual(rule([...sources, ignorant], untrimmed), rule(sources, untrimmed));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('rules of two sources that claim an order are commutative, and all conserve mass', () => {
    fc.assert(
      fc.property(masses, (given) => {
        const sources = sourcesOf(given);
        for (const { combine: rule } of RULES) {
          expectEqual(rule(sources.slice(0, 2), untrimmed), rule(sources.slice(0, 2).reverse(), untrimmed));
          expect(rule(sources, untrimmed).mass.reduce((sum, mass) => sum + mass, 0)).toBeCloseTo(1, 10);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('transforms give what pairs of focal sets give, without sets that no pair gives', () => {
    for (const [product, join] of [
      [conjunctive, (x: number, y: number) => x & y],
      [disjunctive, (x: number, y: number) => x | y],
    ] as const) {
      const [a, b] = [randomMasses(8, 150, 1), randomMasses(8, 150, 2)];
      const pairs = createMassSums(a.frame);
      a.mass.forEach((x, i) => {
        b.mass.forEach((y, j) => {
          pairs.add(join(a.low[i], b.low[j]), 0, x * y);
        });
      });
      expect(a.mass.length * b.mass.length).toBeGreaterThan(3 * 8 * 256);
      const expected = pairs.result();
      const found = product(a, b);
      expect([...found.low]).toEqual([...expected.low]);
      found.mass.forEach((mass, i) => {
        expect(mass).toBeCloseTo(expected.mass[i], 14);
      });
    }
  });

  it('frames of more than 32 elements use both words', () => {
    const [a, b] = [randomMasses(64, 6, 3), randomMasses(64, 6, 4)];
    const product = conjunctive(a, b);
    expect(product.mass.reduce((sum, mass) => sum + mass, 0)).toBeCloseTo(1, 12);
    expect(product.high.some((word) => word !== 0)).toBe(true);
    expect(pignistic(a).reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
    expect(() => frameOf(65)).toThrow(/at most 64/);
  });
});

describe('measures', () => {
  it('belief, plausibility and commonality are what their sums say, in both ways', () => {
    const given = randomMasses(10, 120, 5);
    const all = Int32Array.from({ length: 1023 }, (_, i) => i + 1);
    const dense = measureSets(given, all, new Int32Array(1023));
    for (const set of [1, 6, 77, 513, 1023]) {
      const one = measureSets(given, Int32Array.of(set), Int32Array.of(0));
      for (const key of ['mass', 'belief', 'plausibility', 'commonality', 'pignistic'] as const) {
        expect(dense[key][set - 1], key).toBeCloseTo(one[key][0], 12);
      }
      expect(one.belief[0]).toBeLessThanOrEqual(one.pignistic[0] + 1e-12);
      expect(one.pignistic[0]).toBeLessThanOrEqual(one.plausibility[0] + 1e-12);
    }
  });

  it('uncertainty has its known ends; equal sources are at distance 0', () => {
    const ignorant = uncertaintyOf(vacuous(ABC));
    expect(ignorant.dengBits).toBeCloseTo(Math.log2(7), 12);
    expect(ignorant.nonspecificityBits).toBeCloseTo(Math.log2(3), 12);
    expect(ignorant.pignisticEntropyNats).toBeCloseTo(Math.log(3), 12);
    const certain = uncertaintyOf(source('x', { A: 1 }).masses);
    expect(certain.dengNats + certain.nonspecificityNats + certain.pignisticEntropyNats).toBe(0);
    const one = randomMasses(5, 8, 9);
    expect(jousselmeDistance(one, one)).toBe(0);
    expect(jousselmeDistance(source('x', { A: 1 }).masses, source('y', { B: 1 }).masses)).toBe(1);
  });

  it('reading refuses what is wrong and says where; small sets go to the frame only when asked', () => {
    const read = (entries: Record<string, number>, reading = {}) =>
      massFunction(
        ABC,
        'radar',
        Object.entries(entries).map(([set, mass]) => ({ set, mass })),
        reading,
      );
    expect(() => read({ A: 0.5, B: 0.4 })).toThrow(/masses of source radar sum to 0.9/);
    expect(read({ A: 0.5, B: 0.4 }, { renormalize: true }).mass[0]).toBeCloseTo(5 / 9, 14);
    expect(() => read({ A: 1.5, B: -0.5 })).toThrow(/mass -0.5 of "B" of source radar/);
    expect(() => read({ A: 0.5, D: 0.5 })).toThrow(/"D" is no element/);
    expect(() => read({ A: 0.5, 'B|B': 0.5 })).toThrow(/stands twice/);
    expect(() => read({ A: 0.5, '': 0.5 })).toThrow(/empty set; only --rule smets/);
    const trimmed = namedMasses(withoutSmall(read({ A: 0.9, B: 0.04, C: 0.06 }), 0.05));
    expect([...trimmed.keys()]).toEqual(['A', 'C', 'A|B|C']);
    expect(trimmed.get('A|B|C')).toBeCloseTo(0.04, 14);
    expect(() => ruleNamed('pcr6')).toThrow(/did you mean "pcr5"/);
    expect(() => discounted(vacuous(ABC), 1.2)).toThrow(/reliability 1.2/);
  });
});
