import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { openNpz } from '../../../src/formats/npz.js';
import { chooseMethods, choosePlain, compareMethods } from '../../../src/policy/interventions/comparison.js';
import { comparisonRows, factRows, interventionsBody } from '../../../src/policy/interventions/comparison-report.js';
import { createWeightWriter, type WeightForm, weightFormOf } from '../../../src/policy/interventions/weights-export.js';
import { dumpReport } from '../../../src/policy/rollouts/dump-report.js';
import type { RolloutStep, Rollouts } from '../../../src/policy/rollouts/types.js';
import { type RandomStep, randomStep } from '../random-steps.js';

const folder = mkdtempSync(path.join(tmpdir(), 'surprisal-interventions-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A dump of one random step, or of the same step several times. */
function dumpOf({ index }: RandomStep, steps: readonly RolloutStep[], without: readonly string[] = []): Rollouts {
  const columns = ['logProb', 'oldLogProb', 'entropy', 'advantage', 'topTokens'] as const;
  return {
    index,
    tokens: steps.reduce((sum, { tokens }) => sum + tokens, 0),
    counted: steps.reduce((sum, { counted }) => sum + counted, 0),
    columns: new Set(columns.filter((name) => !without.includes(name))),
    steps,
    rescored: [],
    warnings: [],
    held: 'memory',
    provenance: {},
    fields: [],
    place: (record) => `record ${record}`,
    close: () => undefined,
  };
}

const random = randomStep({ seed: 12, records: 9, longest: 14 });
const METHODS = [
  'clip-higher:clip-high=0.5',
  'clip-cov:ratio=0.1,lower=-0.5',
  'kl-cov:fraction=0.1',
  'steer',
  'entropy-bonus',
];
const options = { plain: choosePlain(undefined), strict: true, seed: 5, topFraction: 0.2 };
const report = dumpReport(dumpOf(random, [random.step]));

describe('comparison', () => {
  const compare = (step: RolloutStep) =>
    compareMethods(dumpOf(random, [step]), { ...options, methods: chooseMethods(METHODS) });
  const body = interventionsBody(compare(random.step), report, 0.2);

  it('has plain GRPO first, which touches and moves nothing', () => {
    const [plain] = body.methods;
    expect(plain).toMatchObject({ method: 'grpo', tokens_touched: 0, gradient_mass_moved_share: 0 });
    expect(plain.entropy_change_against_plain_nats).toBe(0);
    expect(body.methods.map(({ method }) => method)).toEqual(['grpo', ...METHODS]);
  });

  it('counts what effects touch and move', () => {
    const by = new Map(body.methods.map((method) => [method.name, method]));
    const klCov = by.get('kl-cov');
    expect(klCov?.facts.selected).toBe(Math.floor(0.1 * body.tokens));
    expect(klCov?.tokens_touched).toBeGreaterThanOrEqual(klCov?.facts.selected ?? Number.NaN);
    expect(by.get('entropy-bonus')).toMatchObject({ touched_share: 1, gradient_mass_moved_share: 0 });
    // All tokens are touched, so their share of the top fifth is that fifth, and all of it is covered.
    expect(by.get('entropy-bonus')?.top_entropy_share_covered).toBe(1);
    expect(by.get('entropy-bonus')?.top_entropy_share_of_touched).toBeCloseTo(
      Math.floor(0.2 * body.tokens) / body.tokens,
      14,
    );
    const bonus = by.get('entropy-bonus');
    // The effect of the bonus is what its facts say of a coefficient.
    expect(bonus?.entropy_change_against_plain_nats).toBeCloseTo(
      (bonus?.facts.bonus_entropy_change_per_coefficient_nats ?? 0) * (bonus?.facts.coefficient ?? 0),
      12,
    );
    expect(bonus?.facts.policy_entropy_change_nats).toBeCloseTo(body.methods[0].predicted_entropy_change_nats ?? 0, 7);
  });

  it('predicts the change of the entropies by a small step in free softmaxes, exactly', () => {
    // One step of plain policy gradient on the logits of every position, against the exact form of the report.
    const eta = 1e-5;
    const { block } = random;
    const comparison = compareMethods(dumpOf(random, [random.step]), {
      ...options,
      plain: choosePlain('clip-low=1e9,clip-high=1e9,dual-clip=0'),
      methods: [],
    });
    let change = 0;
    for (let i = 0; i < block.mask.length; i++) {
      if (block.mask[i] === 0 || !block.topTokens || !block.logProb || !block.oldLogProb || !block.advantage) continue;
      const { k, logProbs } = block.topTokens;
      const logits = logProbs.subarray(i * k, (i + 1) * k);
      const g = block.advantage[i] * Math.exp(block.logProb[i] - block.oldLogProb[i]);
      const own = block.logProb[i];
      const sampled = logits.indexOf(logits.reduce((best, l) => (Math.abs(l - own) < Math.abs(best - own) ? l : best)));
      const entropyOf = (z: Float64Array): number => {
        const total = Math.log(z.reduce((sum, value) => sum + Math.exp(value), 0));
        return -z.reduce((sum, value) => sum + Math.exp(value - total) * (value - total), 0);
      };
      const moved = logits.map((z, v) => z + eta * g * ((v === sampled ? 1 : 0) - Math.exp(z)));
      change += entropyOf(moved) - entropyOf(logits);
    }
    expect(comparison.steps[0].methods[0].exactChange).toBeCloseTo(change / eta / random.step.counted, 4);
  });

  it('has overlaps of 1 with itself, and symmetric ones', () => {
    const { jaccard, weighted_jaccard } = body.overlap;
    for (let a = 0; a < METHODS.length; a++) {
      if (body.methods[a + 1].tokens_touched > 0) expect(jaccard[a][a]).toBe(1);
      for (let b = 0; b < METHODS.length; b++) {
        expect(jaccard[a][b]).toBe(jaccard[b][a]);
        expect(weighted_jaccard[a][b]).toBe(weighted_jaccard[b][a]);
      }
    }
  });

  it('says the same however the step is cut into blocks', () => {
    expect(interventionsBody(compare(random.pieces), report, 0.2)).toEqual(body);
  });

  it('sums steps, and gives standard errors over them', () => {
    const other = randomStep({ seed: 13, records: 9, longest: 14 });
    const later = { ...other.step, step: 5 };
    const several = compareMethods(
      dumpOf({ ...random, index: { ...random.index, length: new Int32Array(9).fill(20) } }, [random.step, later]),
      { ...options, methods: chooseMethods(METHODS) },
    );
    const two = interventionsBody(several, report, 0.2);
    expect(two.by_step.map(({ step }) => step)).toEqual([4, 5]);
    const [first, second] = two.by_step.map(({ methods }) => methods[3]);
    expect(two.methods[3].tokens_touched).toBe(first.tokens_touched + second.tokens_touched);
    expect(two.methods[3].predicted_entropy_change_nats_se).toBeCloseTo(
      Math.abs((first.predicted_entropy_change_nats ?? 0) - (second.predicted_entropy_change_nats ?? 0)) / 2,
      12,
    );
    expect(two.by_step[0].measured_entropy_change_nats).toBeCloseTo(
      (two.by_step[1].entropy_mean_nats ?? 0) - (two.by_step[0].entropy_mean_nats ?? 0),
      14,
    );
    expect([...comparisonRows(two)]).toHaveLength(3 * (METHODS.length + 1));
    expect([...factRows(two)].some((row) => row[2] === 'metric_p999')).toBe(true);
  });

  it('lists methods that the dump cannot show with the reason, or refuses them where they were asked for', () => {
    const { entropy, topTokens, ...block } = random.block;
    const dump = dumpOf(random, [{ ...random.step, blocks: () => [block] }], ['entropy', 'topTokens']);
    expect([entropy, topTokens]).not.toContain(undefined);
    const all = compareMethods(dump, { ...options, strict: false, methods: chooseMethods([]) });
    const reasons = new Map(all.unavailable.map(({ label, reason }) => [label, reason]));
    expect(reasons.get('steer')).toMatch(/lacks entropies over the whole vocabulary/);
    expect(all.methods.map(({ label }) => label)).toContain('kl-cov');
    expect(all.steps[0].methods[0].steerChange).toBeNaN();
    expect(() => compareMethods(dump, { ...options, methods: chooseMethods(['steer']) })).toThrow(
      /^steer: the dump lacks/,
    );
    const bare = dumpOf(random, [random.step], ['logProb']);
    expect(() => compareMethods(bare, { ...options, methods: [] })).toThrow(/lacks log-probabilities/);
  });

  it('refuses methods that come twice', () => {
    expect(() => chooseMethods(['steer', 'steer'])).toThrow(InputError);
    expect(chooseMethods(['steer', 'steer:weight-min=0.5'])).toHaveLength(2);
  });
});

describe('weights', () => {
  it.each([
    ['w.jsonl', 'jsonl'],
    ['w.npz', 'npz'],
    ['w', 'directory'],
  ] as const)('%s is a %s', (name, form) => {
    expect(weightFormOf(name)).toBe<WeightForm>(form);
  });

  it('hold the effects of every method, in lines and in archives', () => {
    const dump = dumpOf(random, [random.pieces]);
    for (const form of ['jsonl', 'npz', 'directory'] as const) {
      const target = form === 'directory' ? folder : path.join(folder, `all.${form}`);
      const writer = createWeightWriter({ form, path: target, workDirectory: folder }, dump);
      compareMethods(dump, { ...options, methods: chooseMethods(['steer', 'kl-cov:fraction=0.1']), sink: writer.take });
      writer.finish(new Set(['steer', 'kl-cov:fraction=0.1']));
    }
    const lines = readFileSync(path.join(folder, 'all.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const steer = lines.filter(({ method }) => method === 'steer');
    expect(steer.map(({ record }) => record)).toEqual([...random.index.length.keys()]);
    expect(steer.map(({ length }) => length)).toEqual([...random.index.length]);
    const archive = openNpz(path.join(folder, 'all.npz'));
    const own = openNpz(path.join(folder, 'steer.npz'));
    const read = (store: typeof archive, name: string) => {
      const tensor = store.tensors.get(name);
      if (tensor === undefined) throw new Error(`no ${name}`);
      const bytes = new Uint8Array(tensor.byteLength);
      store.readInto(tensor, 0, bytes.length, bytes);
      return bytes;
    };
    const multiplier = new Float64Array(read(archive, 'steer/multiplier').buffer);
    expect([...multiplier]).toEqual(steer.flatMap((line) => line.multiplier));
    expect(read(own, 'multiplier')).toEqual(read(archive, 'steer/multiplier'));
    expect(archive.tensors.get('kl-cov_fraction=0.1/penalty_gradient')?.shape).toEqual([random.step.tokens]);
    expect([...new BigInt64Array(read(own, 'offsets').buffer)].map(Number)).toEqual([...random.block.offsets]);
    archive.close();
    own.close();
  });
});
