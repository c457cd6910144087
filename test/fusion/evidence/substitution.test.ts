import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  alloyTable,
  allRows,
  type ElementSets,
  elementSets,
  type LabelledSet,
} from '../../../src/fusion/evidence/alloy-table.js';
import { evaluate } from '../../../src/fusion/evidence/evaluate.js';
import { combinationName, combinationsOf } from '../../../src/fusion/evidence/exchanges.js';
import { expertMasses } from '../../../src/fusion/evidence/experts.js';
import { type FusionSetup, fuseSources, singleSourceModel } from '../../../src/fusion/evidence/fuse-sources.js';
import { areaUnderCurve, macroF1 } from '../../../src/fusion/evidence/label-scores.js';
import { predictSets, uniformPrior } from '../../../src/fusion/evidence/predict.js';
import { combineSupports, combineTwoSided } from '../../../src/fusion/evidence/simple-support.js';
import { likeness, VERSIONS, type Version } from '../../../src/fusion/evidence/substitution.js';
import { createRandom } from '../../../src/random.js';

const ELEMENTS = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];

function randomAlloys(count: number, seed: number, labels = ['High', 'Low'], weighted = false): LabelledSet[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, (_, i) => {
    const set = Array.from(random.permutation(ELEMENTS.length).subarray(0, 2 + random.integer(4)), (e) => ELEMENTS[e]);
    const label = labels[i < labels.length ? i : random.integer(labels.length)];
    return { set, label, where: '', ...(weighted && { weight: 0.3 + random.uniform() }) };
  });
}

interface Options {
  most?: number;
  version?: Version;
  alpha?: number;
  experts?: FusionSetup['experts'];
  mode?: 'once' | 'each';
}

function setupOf(
  rows: readonly LabelledSet[],
  { most = 2, version = 'v1', alpha = 0.2, experts = [], mode = 'once' }: Options = {},
) {
  const table = alloyTable(ELEMENTS, rows);
  return {
    table,
    experts,
    combinations: combinationsOf(ELEMENTS, most),
    settings: { alpha, version },
    discount: { factor: 2 / 3, mode },
    folds: 5,
    seed: 1,
    prior: uniformPrior(table.labelNames.length),
  } satisfies FusionSetup;
}

/** Dempster's rule on masses over subsets of `k` hypotheses, one pair of focal sets after the other. */
function dempster(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): Map<number, number> {
  const out = new Map<number, number>();
  let total = 0;
  for (const [x, p] of a) {
    for (const [y, q] of b) {
      if ((x & y) === 0) continue;
      out.set(x & y, (out.get(x & y) ?? 0) + p * q);
      total += p * q;
    }
  }
  for (const [set, mass] of out) out.set(set, mass / total);
  return out;
}

/** The method as it is told: every pair, every analogy, folded piece by piece. */
function naive(
  rows: readonly LabelledSet[],
  candidate: readonly string[],
  { most = 2, version = 'v1', alpha = 0.2 }: Options,
) {
  const labels = alloyTable(ELEMENTS, rows).labelNames;
  const less = (x: readonly string[], y: readonly string[]) => x.filter((e) => !y.includes(e)).sort();
  const exchange = (x: readonly string[], y: readonly string[]) => {
    const [t, v] = [less(x, y), less(y, x)];
    const core = x.filter((e) => y.includes(e)).length;
    const allowed = core > 0 && Math.abs(x.length - y.length) <= 2 && t.length <= most && v.length <= most;
    if (!allowed || t.length + v.length === 0) return undefined;
    const union = core + t.length + v.length;
    const j = (Math.sqrt(core ** 2 / (union * Math.min(x.length, y.length))) + 1) / (2 * Math.max(t.length, v.length));
    return { key: [t.join('|'), v.join('|')].sort().join('/'), j };
  };
  const likely = version === 'v3' || version === 'v5';
  const same = (x: readonly string[]) => [...x].sort().join('|') === [...candidate].sort().join('|');
  const known = rows.filter(({ set }) => !same(set));
  const evidence = new Map<string, Map<number, number>>();
  known.forEach((x, i) => {
    for (const y of known.slice(i + 1)) {
      const found = exchange(x.set, y.set);
      if (found === undefined) continue;
      const mass = alpha * (x.weight ?? 1) * (y.weight ?? 1) * (likely ? found.j : 1);
      const piece = new Map([
        [x.label === y.label ? 1 : 2, mass],
        [3, 1 - mass],
      ]);
      evidence.set(found.key, dempster(evidence.get(found.key) ?? new Map([[3, 1]]), piece));
    }
  });
  const whole = 2 ** labels.length - 1;
  let decision = new Map([[whole, 1]]);
  for (const { set, label, weight = 1 } of known) {
    const found = exchange(set, candidate);
    const masses = found && evidence.get(found.key);
    if (!found || !masses) continue;
    const factor = version === 'v1' ? 1 : alpha * (likely ? found.j : 1) * (version === 'v5' ? weight : 1);
    const own = 1 << labels.indexOf(label);
    const [s, d] = [factor * (masses.get(1) ?? 0), version === 'v1' ? 0 : factor * (masses.get(2) ?? 0)];
    decision = dempster(
      decision,
      new Map([
        [own, s],
        [whole & ~own, d],
        [whole, 1 - s - d],
      ]),
    );
  }
  return labels.map((_, l) => decision.get(1 << l) ?? 0);
}

describe('closed forms', () => {
  it('are what folding piece by piece gives, for any number of hypotheses', () => {
    const piece = fc.record({ label: fc.nat(3), a: fc.double({ min: 0.01, max: 0.6, noNaN: true }) });
    fc.assert(
      fc.property(fc.array(piece, { minLength: 1, maxLength: 12 }), (pieces) => {
        const logs = new Float64Array(4);
        let folded = new Map([[15, 1]]);
        for (const { label, a } of pieces) {
          logs[label] += Math.log1p(-a);
          folded = dempster(folded, new Map([[1 << label, a], [15, 1 - a]])); // biome-ignore format: one piece
        }
        const out = new Float64Array(5);
        combineSupports(logs, out);
        for (let l = 0; l < 4; l++) expect(out[l]).toBeCloseTo(folded.get(1 << l) ?? 0, 12);
        expect(out[4]).toBeCloseTo(folded.get(15) ?? 0, 12);
        const two = new Float64Array(16);
        combineTwoSided({ single: new Float64Array(4), without: logs, frame: logs }, two);
        for (let l = 0; l < 4; l++) expect(two[1 << l]).toBeCloseTo(out[l], 12);
      }),
    );
  });

  it('keeps hundreds of near-certain pieces apart, and knows total conflict', () => {
    const out = new Float64Array(3);
    combineSupports(Float64Array.of(-5000, -5001), out);
    expect(out[1] / out[0]).toBeCloseTo(Math.E, 12);
    expect(combineSupports(Float64Array.of(Number.NEGATIVE_INFINITY, -1), out)).toBe(-1);
    expect([...out]).toEqual([1, 0, 0]);
    expect(combineSupports(Float64Array.of(Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY), out)).toBe(
      Number.NEGATIVE_INFINITY,
    );
  });
});

describe('substitution', () => {
  it('equals the method as it is told, for all versions, weights, labels, and for known candidates left out', () => {
    for (const version of VERSIONS) {
      for (const labels of [
        ['High', 'Low'],
        ['High', 'Low', 'Mixed'],
      ]) {
        const rows = randomAlloys(24, 5, labels, version !== 'v1');
        const candidates = [...randomAlloys(6, 9), ...rows.slice(0, 6)];
        const options = { version, most: version === 'v2' ? 1 : 2 };
        const setup = setupOf(rows, options);
        const model = singleSourceModel(setup, allRows(setup.table), 'dataset');
        const found = predictSets(model, elementSets(ELEMENTS, candidates), setup);
        candidates.forEach(({ set }, i) => {
          const expected = naive(rows, set, options);
          expected.forEach((mass, l) => {
            expect(found.masses[i * labels.length + l], `${version} ${set}`).toBeCloseTo(mass, 10);
          });
        });
      }
    }
  });

  it('does not depend on the order of the rows, to the last bit', () => {
    for (const version of ['v1', 'v5'] as const) {
      const rows = randomAlloys(30, 2, undefined, version === 'v5');
      const sets: ElementSets = elementSets(ELEMENTS, randomAlloys(8, 3));
      const results = [rows, [...rows].reverse()].map((given) => {
        const setup = setupOf(given, { version });
        return predictSets(singleSourceModel(setup, allRows(setup.table), 'dataset'), sets, setup).probabilities;
      });
      expect(results[1]).toEqual(results[0]);
    }
  });

  it('likeness is 1 at most, and its formula holds', () => {
    expect(likeness(3, 1, 1)).toBeCloseTo((Math.sqrt(9 / (5 * 4)) + 1) / 2, 15);
    expect(likeness(3, 2, 0)).toBeCloseTo((Math.sqrt(9 / (5 * 3)) + 1) / 4, 15);
    for (let core = 1; core < 6; core++)
      for (let t = 0; t < 3; t++) expect(likeness(core, t, 1)).toBeLessThanOrEqual(1);
  });

  it('certain evidence that contradicts itself is named; alpha and weights have their bounds', () => {
    const row = (set: string, label: string, weight?: number): LabelledSet => ({
      ...{ set: set.split(''), label, where: 'f:2' },
      ...(weight !== undefined && { weight }),
    });
    const rows = [row('abc', 'High'), row('abd', 'High'), row('aec', 'High'), row('aed', 'Low')];
    const learn = (given: LabelledSet[], options: Options) =>
      fuseSources(setupOf(given, options), Int32Array.from(given.keys()));
    expect(() => learn(rows, { alpha: 1, most: 1 })).toThrow(/total conflict on [bc] for [de].*--alpha below 1/);
    expect(() => learn(rows, { alpha: 0 })).toThrow(/alpha 0/);
    expect(() => learn([row('abc', 'High', 4), row('abd', 'Low', 1)], { alpha: 0.1 })).toThrow(/masses above 1/);
    expect(() => alloyTable(ELEMENTS, [row('aab', 'High'), row('ab', 'Low')])).toThrow(/a stands twice/);
    expect(() => alloyTable(ELEMENTS, [row('ab', 'Low')])).toThrow(/every label is Low/);
  });

  it('experts speak of elements that no alloy has; discount after each piece differs from once', () => {
    const rows = randomAlloys(24, 4).filter(({ set }) => !set.includes('g'));
    const [expert] = expertMasses(ELEMENTS, [
      {
        name: 'chemist',
        answers: [
          ['a', 'Yes', 'High'],
          ['b', 'Q1Yes', 'Q2Low'],
          ['c', 'No', 'No'],
          ['d', 'Yes', 'medium'],
        ].map(([first, canJudge, similarity]) => ({
          ...{ first, second: 'g', where: 'x' },
          judgement: { kind: 'answers' as const, canJudge, similarity },
        })),
      },
    ]);
    const at = (a: string, b: string) => ELEMENTS.indexOf(a) * 7 + ELEMENTS.indexOf(b);
    expect([expert.similar[at('g', 'a')], expert.dissimilar[at('g', 'b')], expert.similar[at('d', 'g')]]).toEqual([
      1 / 3,
      1 / 3,
      1 / 6,
    ]);
    expect(expert.pairs).toBe(3);
    const sets = elementSets(
      ELEMENTS,
      rows
        .filter(({ set }) => set.includes('a'))
        .map(({ set, where }) => ({ set: [...set.filter((e) => e !== 'a'), 'g'], where })),
    );
    const predict = (options: Options) => {
      const setup = setupOf(rows, options);
      return predictSets(fuseSources(setup, allRows(setup.table)).model, sets, setup);
    };
    expect(predict({}).unknown.every((unknown) => unknown === 1)).toBe(true);
    const fused = predict({ experts: [expert], most: 1 });
    expect(fused.unknown.some((unknown) => unknown < 1)).toBe(true);
    const model = (mode: 'once' | 'each') =>
      fuseSources(setupOf(rows, { experts: [expert], mode }), Int32Array.from(rows.keys())).model;
    const [once, each] = [model('once'), model('each')];
    const name = (slot: number) => combinationName(once.combinations, once.evidence.first[slot]);
    expect(name(0)).toBeDefined();
    expect(once.masses.some((mass, i) => Math.abs(mass - each.masses[i]) > 0.01)).toBe(true);
  });
});

describe('evaluation', () => {
  it('holds out what it says, and scores every source', () => {
    const setup = setupOf(randomAlloys(40, 6), { most: 1 });
    const without = evaluate(setup, { kind: 'leave-one-element-out', splits: 1, testShare: 0.2 });
    expect(without.splits.map(({ name }) => name)).toEqual(ELEMENTS);
    expect(without.pooled[0].decided).toBe(0);
    const random = evaluate(setup, { kind: 'random', splits: 3, testShare: 0.25 });
    expect(random.splits.map(({ testRows, trainRows }) => [testRows, trainRows])).toEqual([[10, 30], [10, 30], [10, 30]]); // biome-ignore format: pairs
    const one = evaluate(setup, { kind: 'leave-one-out', splits: 1, testShare: 0.2 });
    expect(one.pooled[0].rows).toBe(40);
    expect(one.predictions.unknown.length).toBe(40);
  });

  it('area under the curve, its error and macro F1 agree with their definitions', () => {
    const random = createRandom(1);
    const draw = (n: number, shift: number) =>
      Float64Array.from({ length: n }, () => Math.round(4 * (random.normal() + shift)));
    const [x, y] = [draw(30, 1), draw(40, 0)];
    const wins = (a: number, b: number) => (a > b ? 1 : a === b ? 0.5 : 0);
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = (values: number[]) =>
      values.reduce((s, v) => s + (v - mean(values)) ** 2, 0) / (values.length - 1);
    const first = Array.from(x, (a) => mean(Array.from(y, (b) => wins(a, b))));
    const second = Array.from(y, (b) => mean(Array.from(x, (a) => wins(a, b))));
    const { auc, se } = areaUnderCurve(x, y);
    expect(auc).toBeCloseTo(mean(first), 12);
    expect(se).toBeCloseTo(Math.sqrt(variance(first) / 30 + variance(second) / 40), 12);
    expect(macroF1(Int32Array.of(0, 0, 1, 1), Int32Array.of(0, 1, 1, 1))).toBeCloseTo((2 / 3 + 0.8) / 2, 12);
  });
});
