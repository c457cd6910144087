import { describe, expect, it } from 'vitest';
import { sweepCells, UNSTEERED } from '../../src/steering/sweep-cells.js';
import { clusteredMean, emptyMeasures, layerVerdict, sweepRow } from '../../src/steering/sweep-report.js';
import { searchStrength } from '../../src/steering/sweep-search.js';
import { risingRange, slopeAtZero } from '../../src/steering/sweep-verdict.js';
import { strengthForEntropy, TARGET_TOLERANCE_NATS } from '../../src/steering/target-strength.js';

const grid = {
  layers: [3],
  strengths: new Map([[3, [-2, -1, 0, 1, 2]]]),
  shuffled: 1,
  random: 2,
  temperatures: [1, 1.5],
};

/** Cells whose mean entropy is `of(cell)`, with an offset a prompt that is the same in every cell. */
function measured(cells: ReturnType<typeof sweepCells>, prompts: number, of: (cell: (typeof cells)[number]) => number) {
  return cells.map((cell) => {
    const measures = emptyMeasures(prompts);
    measures.entropyNats.set(Array.from({ length: prompts }, (_, p) => of(cell) + 0.1 * Math.sin(p)));
    measures.actionMass.fill(1);
    return measures;
  });
}

describe('cells of a sweep', () => {
  it('holds the unsteered model once, no zero strengths, and every control at every strength', () => {
    const cells = sweepCells(grid);
    expect(cells[0]).toEqual(UNSTEERED);
    expect(cells.filter(({ kind }) => kind === 'temperature').map(({ temperature }) => temperature)).toEqual([1.5]);
    for (const kind of ['vector', 'shuffled'] as const) {
      expect(cells.filter((cell) => cell.kind === kind).map(({ strength }) => strength)).toEqual([-2, -1, 1, 2]);
    }
    expect(cells.filter(({ kind }) => kind === 'random')).toHaveLength(8);
  });
});

describe('the verdict on a curve', () => {
  const clusters = { runOf: Int32Array.from({ length: 20 }, (_, p) => p >> 1), runs: 10, seed: 1 };
  const cells = sweepCells(grid);

  it('finds a rise over the whole range, flat controls, and the slope', () => {
    const measures = measured(cells, 20, ({ kind, strength }) => 0.4 + (kind === 'vector' ? 0.05 * strength : 0));
    const verdict = layerVerdict(3, cells, measures, clusters);
    expect([verdict.rising_from, verdict.rising_to]).toEqual([-2, 2]);
    expect(verdict.growth_nats).toBeCloseTo(0.2, 12);
    expect(verdict).toMatchObject({ rises: true, controls_flat: true, controls_as_large: 0 });
    expect(verdict.slope_nats_per_strength).toBeCloseTo(0.05, 12);
  });

  it('says so when controls rise as well, or the vector does nothing', () => {
    const alike = layerVerdict(
      3,
      cells,
      measured(cells, 20, ({ strength }) => 0.4 + 0.05 * strength),
      clusters,
    );
    expect(alike).toMatchObject({ rises: true, controls_flat: false, controls_as_large: 1 });
    const nothing = layerVerdict(
      3,
      cells,
      measured(cells, 20, () => 0.4),
      clusters,
    );
    expect(nothing).toMatchObject({ rising_from: 0, rising_to: 0, growth_nats: 0, rises: false, controls_flat: false });
  });

  it('has no verdict on controls that were not run', () => {
    const bare = sweepCells({ ...grid, random: 0, shuffled: 0 });
    const verdict = layerVerdict(
      3,
      bare,
      measured(bare, 20, ({ strength }) => strength),
      clusters,
    );
    expect(verdict).toMatchObject({ random_growth_nats: null, controls_flat: null, controls_as_large: null });
  });

  it('takes the range around zero only', () => {
    expect(risingRange([-2, -1, 0, 1, 2], [5, 1, 2, 3, 1])).toEqual([1, 3]);
    expect(risingRange([0, 1], [2, 1])).toEqual([0, 0]);
    expect(slopeAtZero([0, 2], [1, 2])).toBe(0.5);
    expect(slopeAtZero([0], [1])).toBeNaN();
  });

  it('pairs changes by prompt: what differs between prompts does not widen them', () => {
    const measures = measured(cells, 20, ({ strength }) => 0.4 + 0.05 * strength);
    const norms = new Map([[3, { vector: 2, residual: 8 }]]);
    const last = cells.findIndex(({ kind, strength }) => kind === 'vector' && strength === 2);
    const row = sweepRow(cells[last], measures[last], measures[0], norms, clusters);
    expect(row.entropy_change_nats).toBeCloseTo(0.1, 12);
    expect(row.entropy_change_nats_high - row.entropy_change_nats_low).toBeLessThan(1e-12);
    expect(row.action_entropy_nats_high - row.action_entropy_nats_low).toBeGreaterThan(0.01);
    expect(row.effective_strength).toBe(0.5);
  });

  it('leaves out prompts without a value, and draws runs', () => {
    const values = Float64Array.of(1, Number.NaN, 3);
    const { mean } = clusteredMean(values, { runOf: Int32Array.of(0, 0, 1), runs: 2, seed: 0 });
    expect(mean).toBe(2);
    const alone = clusteredMean(values, { runOf: Int32Array.of(0, 0, 0), runs: 1, seed: 0 });
    expect([alone.mean, alone.low]).toEqual([2, Number.NaN]);
  });
});

describe('the strength for a target', () => {
  const curve = async (strength: number): Promise<number> => Math.log(2) / (1 + Math.exp(-strength));

  it.each([0.1, 0.3466, 0.6])('reaches %s on a curve that bends', async (target) => {
    const points = await Promise.all(
      [-8, 0, 8].map(async (strength) => ({ strength, entropyNats: await curve(strength) })),
    );
    const { found, evaluations } = await strengthForEntropy(target, points, curve);
    expect(Math.abs(((await curve(found?.strength ?? Number.NaN)) as number) - target)).toBeLessThan(
      TARGET_TOLERANCE_NATS,
    );
    expect(evaluations).toBeLessThan(12);
  });

  it('prefers the crossing nearest to zero, and finds none where there is none', async () => {
    const points = [-3, -1, 0, 1, 3].map((strength) => ({ strength, entropyNats: Math.cos(strength) }));
    const near = await strengthForEntropy(0.9, points, async (strength) => Math.cos(strength));
    expect(Math.abs(near.found?.strength ?? Number.NaN)).toBeCloseTo(Math.acos(0.9), 2);
    const none = await strengthForEntropy(2, points, async () => 0);
    expect(none).toEqual({ found: null, evaluations: 0 });
  });
});

describe('the search over layer and strength', () => {
  it('finds the layer and strength of the highest entropy that keeps the actions named', async () => {
    const found = await searchStrength(
      {
        targetNats: null,
        leastMass: 0.9,
        layers: [2, 5, 7],
        low: -4,
        high: 4,
        unitOf: () => 1,
        samples: 60,
        rounds: 25,
        seed: 3,
      },
      async (cells) =>
        cells.map(({ layer, strength }) => {
          const measures = emptyMeasures(4);
          // Layer 7 reaches more, but there the model no longer names an action.
          measures.entropyNats.fill((layer === 5 ? 0.6 : layer === 7 ? 0.9 : 0.3) * Math.exp(-((strength - 1.5) ** 2)));
          measures.actionMass.fill(layer === 7 ? 0.1 : 1);
          return measures;
        }),
    );
    expect(found.layer).toBe(5);
    expect(found.strength).toBeCloseTo(1.5, 1);
    expect(found.rounds.at(-1)?.layer_probabilities).toHaveLength(3);
  });
});
